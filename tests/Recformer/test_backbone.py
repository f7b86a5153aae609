"""Backbones and checkpoints of the encoder: conversion, MiniLM against BERT, files and their errors."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.config import RecformerConfig, read_config
from Recformer.conversion import convert
from Recformer.library import RecformerForSeqRec, load_recommender
from Recformer.model import RecformerModel
from Recformer.save_longformer_ckpt import Config, main
from seqrec.text import backbones
from seqrec.text.backbones import find_backbone, load_tokenizer
from seqrec.text.options import EncoderOptions
from seqrec.text.sequences import TokenBatch, item_sequences
from seqrec.text.tokens import ItemTokens
from seqrec.text.weights import load_checkpoint, load_folder, save_checkpoint

SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 60,
    "pad_token_id": 1,
}


def small_config(**changes: Any) -> RecformerConfig:
    own = {"position_offset": 2, "cls_token_id": 0, "attention_window": (8,) * 3, "max_token_num": 58}
    return RecformerConfig(**SMALL | own | changes)


@pytest.fixture(scope="module")
def minilm() -> tuple[RecformerModel, Any]:
    return load_backbone("minilm", max_token_num=48, attention_window=96)


def test_minilm_equals_bert_where_the_window_covers_all(minilm: tuple[RecformerModel, Any]) -> None:
    from transformers import BertModel

    model, tokenizer = minilm
    theirs = BertModel.from_pretrained(find_backbone("minilm"), add_pooling_layer=False, dtype=torch.float32)
    theirs.train(False)
    texts = ["stainless steel hose clamp", "a", "a long " * 19 + "text"]
    rows = [[101, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    ids = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    batch = TokenBatch(ids, torch.zeros_like(ids), torch.zeros_like(ids), offsets)
    positions = model.embeddings.item_position_embeddings
    kept = positions.weight.detach().clone()
    nn.init.zeros_(positions.weight)
    with torch.no_grad():
        padded = batch.padded(0)
        expected = theirs(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).last_hidden_state
        out = model(batch, all_tokens=True)
        positions.weight.copy_(kept)
    real = padded["attention_mask"].bool()
    torch.testing.assert_close(out.tokens, expected[real], atol=1e-5, rtol=1e-5)
    means = torch.stack([row[mask].mean(0) for row, mask in zip(expected, real, strict=True)])
    assert model.config.pooler_type == "mean"
    torch.testing.assert_close(out.pooled, means, atol=1e-5, rtol=1e-5)


def test_dropout_is_the_backbone_s_or_what_was_asked_for(backbone: Path, items: ItemTokens) -> None:
    batch = item_sequences(np.arange(1, 9), items)
    for dropout, is_without in ((None, False), (0.0, True)):
        options = EncoderOptions(max_token_num=40, max_attr_length=8, dropout=dropout)
        model, _ = load_backbone(str(backbone), **options.changes)
        assert torch.equal(model.train()(batch).pooled, model.eval()(batch).pooled) == is_without


def test_minilm_is_converted_with_a_report(minilm: tuple[RecformerModel, Any]) -> None:
    model, tokenizer = minilm
    source = load_folder(find_backbone("minilm"))
    config = read_config(find_backbone("minilm"), tokenizer, max_token_num=1100)
    made = convert(source, config, seed=3)
    assert len(made.copied) + len(made.made) == len(made.state) == len(model.state_dict())
    table, learnt = made.state["embeddings.position_embeddings.weight"], source["embeddings.position_embeddings.weight"]
    assert torch.equal(table, torch.cat([learnt, learnt, learnt[:76]]))
    types = made.state["embeddings.token_type_embeddings.weight"]
    assert torch.equal(types, source["embeddings.token_type_embeddings.weight"][:1].expand(4, -1))
    assert torch.equal(
        made.state["encoder.layer.5.attention.self.key_global.weight"],
        source["encoder.layer.5.attention.self.key.weight"],
    )
    name = "embeddings.item_position_embeddings.weight"
    again, other = convert(source, config, seed=3).state[name], convert(source, config, seed=4).state[name]
    assert torch.equal(made.state[name], again) and not torch.equal(made.state[name], other)
    assert abs(made.state[name].std().item() - 0.02) < 0.001
    assert sorted(made.left_out) == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "512 learnt positions repeated up to 1100" in made.summary()


def test_any_of_the_three_kinds_is_converted() -> None:
    import transformers

    for kind, offset in (("Bert", 0), ("Roberta", 2), ("Longformer", 2)):
        window = {"attention_window": [8] * 3} if kind == "Longformer" else {}
        config = getattr(transformers, f"{kind}Config")(**SMALL | window)
        source = getattr(transformers, f"{kind}ForMaskedLM")(config).state_dict()
        rows = 60 + offset + 20
        ours = small_config(position_offset=offset, max_position_embeddings=rows, max_token_num=80)
        made = convert(source, ours)
        RecformerModel(ours).load_state_dict(made.state)
        assert {f"lm_head.{part}" for part in ("dense.weight", "layer_norm.bias", "bias")} <= set(made.head)
        table = made.state["embeddings.position_embeddings.weight"]
        assert torch.equal(table[60:rows], table[offset : offset + rows - 60])
        twins = [name for name in made.made if "_global" in name]
        assert len(twins) == (0 if kind == "Longformer" else 18)


def test_conversion_refuses_other_weights() -> None:
    state = RecformerModel(small_config()).state_dict()
    state["decoder.block.weight"] = torch.zeros(1)
    state.pop("encoder.layer.1.attention.self.key.weight")
    with pytest.raises(
        ValueError, match=r"decoder\.block\.weight is of no use.*layer\.1\.attention\.self\.key\.weight"
    ):
        convert(state, small_config())


def test_a_written_backbone_loads_alone(tmp_path: Path, minilm: tuple[RecformerModel, Any]) -> None:
    model, tokenizer = minilm
    path = main(Config(output=tmp_path / "a b" / "mini.bin", max_token_num=48, attention_window=96))
    loaded, loaded_tokenizer = load_backbone("no folder at all", path, temp=0.1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.config.temp == 0.1 and loaded.config.attention_window == (96,) * 6
    assert loaded_tokenizer("a hose clamp")["input_ids"] == tokenizer("a hose clamp")["input_ids"]
    assert not list(tmp_path.glob("**/.*tmp"))
    with pytest.raises(ValueError, match="with a suffix"):
        main(Config(output=tmp_path / "mini"))


@pytest.mark.parametrize("layout", ["bare", "around", "lightning", "deepspeed", "safetensors"])
def test_checkpoints_load_in_every_layout(tmp_path: Path, layout: str) -> None:
    model = RecformerModel(small_config())
    state = model.state_dict()
    around = {f"longformer.{name}": tensor for name, tensor in state.items()} | {"lm_head.bias": torch.zeros(99)}
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.bin")
    if layout == "bare":
        save_checkpoint(path, state)
    elif layout == "around":
        save_checkpoint(path, around | {"longformer.embeddings.position_ids": torch.arange(9)})
    elif layout == "lightning":
        torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "epoch": 3}, path)
    elif layout == "deepspeed":
        torch.save({"module": {f"_forward_module.model.{name}": t.half() for name, t in around.items()}}, path)
    else:
        save_file(around, path)
    other = RecformerModel(small_config())
    load_weights(other, path)
    for name, tensor in state.items():
        expected = tensor.half().float() if layout == "deepspeed" else tensor
        assert torch.equal(other.state_dict()[name], expected), name


def test_a_recommender_loads_with_its_items(tmp_path: Path) -> None:
    model = RecformerForSeqRec(small_config(item_num=4))
    table = torch.randn(4, 24)
    save_checkpoint(tmp_path / "best.bin", model.state_dict() | {"item_embedding.weight": table})
    load_recommender(model, tmp_path / "best.bin")
    assert model.item_embedding is not None
    assert torch.equal(model.item_embedding.weight, torch.cat([torch.zeros(1, 24), table]))
    with pytest.raises(ValueError, match="vectors of 4 items, the catalogue has 9"):
        load_recommender(RecformerForSeqRec(small_config(item_num=9)), tmp_path / "best.bin")


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = RecformerModel(small_config())
    state = model.state_dict()
    state["embeddings.extra"] = torch.zeros(1)
    state["embeddings.LayerNorm.bias"] = torch.zeros(5)
    state.pop("encoder.layer.0.output.dense.bias")
    save_checkpoint(tmp_path / "w.bin", state)
    message = r"1 missing: encoder\.layer\.0\.output.*1 unexpected: embeddings\.extra.*\(5,\) for \(24,\)"
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "w.bin")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*absent\.bin"):
        load_checkpoint(tmp_path / "absent.bin")
    (tmp_path / "text.bin").write_text("not tensors")
    with pytest.raises(ValueError, match="no whole file of tensors"):
        load_checkpoint(tmp_path / "text.bin")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = find_backbone("minilm")
    shutil.copy(source / "config.json", tmp_path)
    shutil.copy(source / "tokenizer_config.json", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"has no tokenizer, .* tokenizer\.json, vocab\.txt, vocab\.json with merg"
    ):
        load_tokenizer(tmp_path)
    shutil.copy(source / "vocab.txt", tmp_path)
    words = ["guitar", "strings"]
    assert load_tokenizer(tmp_path)(words)["input_ids"] == load_tokenizer(source)(words)["input_ids"]


def test_unknown_and_changed_backbones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"'no/such/model' is no folder, not `minilm`.*pip install"):
        find_backbone("no/such/model")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        find_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"type 'gpt2', expected one of \['bert', 'modernbert', 'longformer'"):
        read_config(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_folder(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"changed")
    monkeypatch.setattr(backbones, "package_folder", lambda _: tmp_path)
    with pytest.raises(ValueError, match=r"expected 53aa51172d.*force-reinstall"):
        find_backbone("minilm")
