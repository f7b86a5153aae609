"""Recformer as a library: the README's lines, saving and loading, published weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from Recformer.backbone import load_backbone
from Recformer.config import RecformerConfig
from Recformer.library import RecformerForSeqRec, RecformerTokenizer
from Recformer.model import RecformerModel
from tests.forked import ROOT

ITEMS = [{"title": "Cordless drill", "brand": "Acme"}, {"title": "Drill bits"}, {"title": "Garden hose"}]


def test_the_readmes_lines() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "Recformer/README.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    with torch.no_grad():
        exec(code, scope)
    scores = scope["scores"]
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (1, 4)
    assert scores[0].argsort(descending=True).tolist() == [1, 2, 3, 0]


def test_an_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    model = load_backbone("minilm", max_token_num=64)[0]
    tokenizer = RecformerTokenizer.from_pretrained("minilm", model.config)
    torch.nn.init.normal_(model.embeddings.item_position_embeddings.weight)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load_backbone(str(tmp_path))[0]
    assert again.config == model.config
    batch = RecformerTokenizer.from_pretrained(str(tmp_path))([ITEMS, ITEMS[:1]])
    with torch.no_grad():
        assert torch.equal(again(batch).pooled, model(tokenizer([ITEMS, ITEMS[:1]])).pooled)
    assert RecformerForSeqRec.from_pretrained(str(tmp_path)).config == model.config


def test_a_recommender_is_saved_and_loaded_with_its_items(tmp_path: Path) -> None:
    model = RecformerForSeqRec.from_pretrained("minilm", max_token_num=64)
    model.init_item_embedding(torch.cat([torch.zeros(1, 384), torch.randn(3, 384)]))
    tokenizer = RecformerTokenizer.from_pretrained("minilm", model.config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = RecformerForSeqRec.from_pretrained(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(again(tokenizer([ITEMS])), model(tokenizer([ITEMS])))
    encoder = load_backbone(str(tmp_path))[0].state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.longformer.state_dict().items())


def test_published_weights_load_by_name() -> None:
    config = RecformerConfig.from_pretrained("minilm", max_attr_num=2, attention_window=32)
    assert (config.max_attr_num, config.attention_window) == (2, (32,) * 6)
    state = RecformerModel(config).state_dict()
    published = {**state, "embeddings.position_ids": torch.arange(512)[None]}
    RecformerModel(config).load_state_dict(published)
    around = {f"longformer.{name}": tensor for name, tensor in published.items()} | {"lm_head.bias": torch.zeros(3)}
    model = RecformerForSeqRec(config)
    left = model.load_state_dict(around, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == ([], ["lm_head.bias"])
    assert torch.equal(model.longformer.state_dict()["embeddings.LayerNorm.bias"], state["embeddings.LayerNorm.bias"])


def test_histories_are_read_the_most_recent_item_first() -> None:
    tokenizer = RecformerTokenizer.from_pretrained("minilm")
    batch = tokenizer([ITEMS[:2], []])
    words = tokenizer.tokenizer.convert_ids_to_tokens(batch.input_ids.tolist())
    expected = ["[CLS]", "title", "drill", "bits", "title", "cord", "##less", "drill", "brand", "ac", "##me", "[CLS]"]
    assert words == expected
    np.testing.assert_array_equal(batch.item_position_ids[1:4], 1)
    with pytest.raises(ValueError, match="no item has any attribute"):
        tokenizer([[{}]])
