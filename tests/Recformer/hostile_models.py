"""Opening models and checkpoints that are damaged or made by somebody else; see `tests/hostile`."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors.torch import save as to_safetensors

from Recformer.backbone import load_backbone
from seqrec.text.weights import load_checkpoint, load_folder
from tests.hostile.files import changed_file, saved, torch_content
from tests.hostile.trial import Check
from tests.hostile.values import altered


@functools.cache
def original() -> Path:
    """A model's folder, whole."""
    folder = Path("original-model").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    write_model(folder)
    return folder


def write_model(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    torch.save(load_folder(folder), folder / "pytorch_model.bin")


@st.composite
def headers(draw: DrawFn) -> bytes:
    """Return a .safetensors file with an odd header, or a few numbers too many or too few."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    content = to_safetensors(state)
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(draw(altered(json.loads(content[8 : 8 + size]), 3))).encode()
    claimed = draw(st.sampled_from([len(header)] * 6 + [0, 2**31, 2**63, len(header) + 1]))
    return claimed.to_bytes(8, "little") + header + content[8 + size :][: draw(st.sampled_from([40, 40, 40, 20, 0]))]


def changed(*names: str) -> SearchStrategy[tuple[str, bytes]]:
    """Return one of the model's files and other bytes for it, which are made when they are asked for."""
    return st.deferred(
        lambda: st.sampled_from([(name, (original() / name).read_bytes()) for name in names]).flatmap(changed_file)
    )


def open_checkpoint(content: tuple[str, bytes], place: Path) -> None:
    (place / content[0]).write_bytes(content[1])
    for tensor in load_checkpoint(place / content[0]).values():
        tensor.double().sum()


def open_model(change: tuple[str, bytes], place: Path) -> None:
    folder = Path(shutil.copytree(original(), place / "model"))
    (folder / change[0]).write_bytes(change[1])
    model, _ = load_backbone(str(folder), max_token_num=9)
    whole = load_checkpoint(original() / "model.safetensors")["embeddings.word_embeddings.weight"]
    if not change[0].endswith((".safetensors", ".bin")):
        assert torch.equal(model.state_dict()["embeddings.word_embeddings.weight"], whole)
    assert sum(parameter.numel() for parameter in model.parameters()) < 10**6


def beside(name: str, contents: SearchStrategy[bytes], of: str) -> SearchStrategy[tuple[str, bytes]]:
    """Return contents, or those of the model's file `of` after an accident, as a file of its own."""
    return st.one_of(st.tuples(st.just(name), contents), changed(of).map(lambda change: (name, change[1])))


KINDS: dict[str, tuple[SearchStrategy[Any], Check]] = {
    "checkpoint": (beside("c.bin", torch_content.map(saved), "pytorch_model.bin"), open_checkpoint),
    "safetensors": (beside("c.safetensors", headers(), "model.safetensors"), open_checkpoint),
    "model's config": (changed("config.json"), open_model),
    "model's other files": (changed("model.safetensors", "tokenizer_config.json", "vocab.txt"), open_model),
}
