"""Item vectors: the precision is what was asked for, whatever the machine could do."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from Recformer.backbone import load_backbone
from Recformer.config import encoding_options
from Recformer.model import RecformerModel
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import load_embeddings
from seqrec.text.encoding import encode_items
from seqrec.text.sequences import item_sequences
from seqrec.text.tokens import ItemTokens
from tests.forked import BFLOAT16_QUESTIONS, run_script
from tests.Recformer.conftest import LIMIT_FLAGS, LIMITS


@pytest.fixture
def model(backbone: Path) -> RecformerModel:
    return load_backbone(str(backbone), **LIMITS)[0]


@pytest.fixture(params=[True, False], ids=["with-bfloat16", "without-bfloat16"])
def _hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in BFLOAT16_QUESTIONS:
        monkeypatch.setattr(module, name, lambda *args, **kwargs: request.param)


@pytest.fixture
def _reduced_outside() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", torch.bfloat16):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_hardware", "_reduced_outside")
def test_float32_is_the_default_everywhere(model: RecformerModel, items: ItemTokens) -> None:
    vectors = encode_items(model, items, max_tokens=10**6)
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        texts = item_sequences(np.arange(1, items.num_items + 1), items, LIMITS["max_token_num"])
        exact = model.double()(texts).pooled
    torch.testing.assert_close(vectors[1:].double(), exact, rtol=0, atol=1e-5)  # bfloat16 is 1e-2 off


@pytest.mark.usefixtures("_hardware")
def test_bfloat16_is_a_choice(model: RecformerModel, items: ItemTokens) -> None:
    exact, reduced = encode_items(model, items), encode_items(model, items, precision="bf16-mixed")
    assert reduced.dtype == torch.float32
    assert 1e-4 < (exact - reduced).abs().max() < 0.1
    assert torch.cosine_similarity(exact[1:], reduced[1:]).min() > 0.999
    kept = encoding_options(model.config, "mine", "bf16-mixed")
    assert kept != encoding_options(model.config, "mine", "32-true")


def test_encode_records_the_precision_and_keeps_parts_of_each_apart(
    tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    where = ["--data_path", str(tiny_path), "--model_name_or_path", str(backbone), "--embedding_dir", str(tmp_path)]
    vectors = {}
    for precision in ("32-true", "bf16-mixed"):
        flags = ["--init_type", precision, "--precision", precision, *where, *LIMIT_FLAGS]
        run_script("Recformer/encode.py", *flags, output=tmp_path / "log")
        assert f'"precision": "{precision}"' in (tmp_path / "tiny" / f"{precision}.json").read_text()
        vectors[precision] = load_embeddings(precision, tiny, tmp_path)
    assert np.abs(vectors["32-true"] - vectors["bf16-mixed"]).max() > 1e-4
