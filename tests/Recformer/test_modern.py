"""ModernBERT as a backbone: equal to transformers' own on the same weights, converted, trained and saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM

from Recformer.attention import attend_freely, attend_locally
from Recformer.backbone import load_backbone, load_pretraining
from Recformer.modern import ModernLayer
from seqrec.nn.ragged import plan_batch
from seqrec.text.backbones import find_backbone
from seqrec.text.sequences import TokenBatch
from tests import forked


def config_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "config.json").read_text())
    return found


@pytest.fixture(scope="module")
def source() -> ModernBertForMaskedLM:
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=30522,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=5,
        num_attention_heads=3,
        local_attention=8,
        pad_token_id=0,
        cls_token_id=101,
        initializer_range=0.3,
        max_position_embeddings=128,
    )
    model: ModernBertForMaskedLM = ModernBertForMaskedLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model


@pytest.fixture(scope="module")
def backbone(source: ModernBertForMaskedLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modern")
    source.save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_backbone("minilm")).save_pretrained(folder)
    return folder


def batch_of(lengths: list[int]) -> TokenBatch:
    generator = torch.Generator().manual_seed(1)
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    ids = torch.randint(1000, 30000, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    return TokenBatch(ids, torch.zeros_like(ids), torch.zeros_like(ids), offsets)


@pytest.mark.parametrize("pooler_type", ["cls", "mean"])
@pytest.mark.parametrize("granularity", [1, 8])
def test_equals_modernbert(
    source: ModernBertForMaskedLM,
    backbone: Path,
    pooler_type: str,
    granularity: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seqrec.nn.ragged.CPU_GRANULARITY", granularity)  # above 1, groups are padded as on a GPU
    model, _ = load_backbone(str(backbone), max_token_num=100, pooler_type=pooler_type)
    torch.nn.init.zeros_(model.embeddings.item_position_embeddings.weight)
    batch = batch_of([4, 5, 6, 1, 9, 40, 9, 70])
    padded = batch.padded(0)
    with torch.no_grad():
        read = model(batch, all_tokens=True)
        pooled = model(batch).pooled
        expected = source.model(padded["input_ids"], padded["attention_mask"]).last_hidden_state
    real = padded["attention_mask"].bool()
    torch.testing.assert_close(read.tokens, expected[real], rtol=1e-4, atol=1e-5)
    means = (expected * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
    for found in (pooled, read.pooled):
        torch.testing.assert_close(found, expected[:, 0] if pooler_type == "cls" else means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("drop", [0.0, 0.1])
@pytest.mark.parametrize("attend", [attend_freely, attend_locally])
def test_padding_leaves_gradients_finite(attend: Any, drop: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query in padding may be further than the window from every token."""
    monkeypatch.setattr("seqrec.nn.ragged.CPU_GRANULARITY", 64)
    plan = plan_batch(torch.tensor([5, 60, 3]), torch.device("cpu"))
    parts = [torch.randn(68, 2, 8, requires_grad=True) for _ in range(3)]
    attend(*parts, plan, 4, drop).sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


def test_the_language_model_head_comes_along(source: ModernBertForMaskedLM, backbone: Path) -> None:
    model, _ = load_pretraining(str(backbone), max_token_num=100)
    torch.nn.init.zeros_(model.longformer.embeddings.item_position_embeddings.weight)
    batch, at = batch_of([12, 30]), torch.tensor([3, 15, 40])
    padded = batch.padded(0)
    with torch.no_grad():
        tokens = model.longformer(batch, all_tokens=True).tokens
        loss = model.lm_head(tokens[at], model.longformer.embeddings.word_embeddings.weight, torch.tensor([7, 8, 9]))
        logits = source(padded["input_ids"], padded["attention_mask"]).logits[padded["attention_mask"].bool()][at]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:, 1:], torch.tensor([6, 7, 8])))


def test_older_files_say_the_same(backbone: Path, tmp_path: Path) -> None:
    today = load_backbone(str(backbone), max_token_num=100)[0].config
    for file in backbone.iterdir():
        (tmp_path / file.name).symlink_to(file)
    older = {key: value for key, value in config_of(backbone).items() if key not in ("layer_types", "rope_parameters")}
    older |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert load_backbone(str(tmp_path), max_token_num=100)[0].config == today
    assert today.full_attention_layers == (0, 3)
    assert today.attention_window == (8,) * 5


def test_it_is_finetuned_with_low_rank_updates_and_saved(backbone: Path, tiny_path: Path, tmp_path: Path) -> None:
    where = ("--data_path", tiny_path, "--model_name_or_path", backbone, "--runs_dir", tmp_path / "runs")
    more = (
        "--embedding_dir",
        tmp_path / "embedding",
        "--max_token_num",
        "40",
        "--num_epochs",
        "1",
        "--no-progress_bar",
    )
    lora = ("--lora_r", "2", "--lora_targets", "qkv", "attention_out")
    forked.run_script("Recformer/finetune.py", *where, *more, *lora, output=tmp_path / "log")
    start, end = (np.load(tmp_path / f"embedding/tiny/{name}.npy") for name in ("longformer", "finetune"))
    assert np.abs(start - end).max() > 1e-6

    model, tokenizer = load_backbone(str(backbone), max_token_num=40)
    assert all(isinstance(layer, ModernLayer) for layer in model.encoder.layers)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again, _ = load_backbone(str(tmp_path / "saved"))
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(batch_of([7, 20])).pooled, model(batch_of([7, 20])).pooled)
