"""Converted files in the published classes: every name and shape, the head's decoder, what is left out."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from Recformer import convert_pretrain_ckpt, save_longformer_ckpt
from Recformer.backbone import load_pretraining
from Recformer.pretraining import RecformerForPretraining
from tests.Recformer.conftest import LIMITS

DECODER, WORDS = "lm_head.decoder.weight", "longformer.embeddings.word_embeddings.weight"


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def published_class(positions: int) -> Any:
    """Return a stand-in for the published `RecformerForPretraining`; its `longformer` is one for `RecformerModel`.

    It has the modules of transformers' Longformer and the item positions; and, as older versions of transformers had,
    the buffer of positions and one bias under two names.
    """
    from transformers import LongformerConfig, LongformerForMaskedLM

    config = LongformerConfig(
        vocab_size=30522,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        type_vocab_size=4,
        attention_window=[64, 64],
        tie_word_embeddings=False,
    )
    model = LongformerForMaskedLM(config)
    model.lm_head.decoder.bias = model.lm_head.bias
    embeddings = model.longformer.embeddings
    embeddings.item_position_embeddings = nn.Embedding(51, 16)
    embeddings.register_buffer("position_ids", torch.zeros(1, positions, dtype=torch.int64))
    return model


def write_pretrained(path: Path, backbone: Path, untie_decoder: bool, extra: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write weights as Lightning does, and return them under the model's names."""
    torch.manual_seed(0)
    model, _ = load_pretraining(str(backbone), untie_decoder=untie_decoder, attention_window=64, **LIMITS)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    torch.save({"state_dict": {f"model.{name}": t for name, t in (model.state_dict() | extra).items()}}, path)
    return model.state_dict()


def convert(source: Path, backbone: Path, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert a checkpoint and return both files."""
    files = folder / "encoder.bin", folder / "whole.bin"
    convert_pretrain_ckpt.main(convert_pretrain_ckpt.Config(source, None, str(backbone), *files))
    encoder, whole = (torch.load(file, weights_only=True) for file in files)
    return encoder, whole


@pytest.mark.parametrize("untie_decoder", [False, True])
def test_a_pretrained_model_loads_strictly_into_the_published_classes(
    backbone: Path, tmp_path: Path, untie_decoder: bool, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {"item_embedding.weight": torch.zeros(3, 16), "longformer.embeddings.position_ids": torch.arange(64)[None]}
    state = write_pretrained(tmp_path / "best.ckpt", backbone, untie_decoder, extra)
    encoder, whole = convert(tmp_path / "best.ckpt", backbone, tmp_path)
    assert "no part of a Recformer, left out: item_embedding.weight\n" in caplog.text

    theirs = published_class(64)
    theirs.longformer.load_state_dict(encoder, strict=True)
    theirs.load_state_dict(whole, strict=True)
    assert theirs.longformer.embeddings.position_ids.tolist() == [list(range(64))]
    assert torch.equal(theirs.lm_head.decoder.weight, state[DECODER if untie_decoder else WORDS])
    assert torch.equal(whole[DECODER], whole[WORDS]) != untie_decoder

    ours = RecformerForPretraining(load_pretraining(str(backbone), **LIMITS)[0].longformer, untie_decoder=untie_decoder)
    ours.load_state_dict(state)
    x, labels = torch.randn(5, 16), torch.tensor([7, 1, 30521, 99, 7])
    loss = ours.lm_head(x, ours.longformer.word_embeddings.weight, labels)
    torch.testing.assert_close(loss, F.cross_entropy(theirs.lm_head(x)[:, 1:], labels - 1), rtol=1e-5, atol=1e-5)


def test_a_converted_file_is_converted_to_itself(backbone: Path, tmp_path: Path) -> None:
    write_pretrained(tmp_path / "best.ckpt", backbone, True, {})
    whole = convert(tmp_path / "best.ckpt", backbone, tmp_path)[1]
    (tmp_path / "again").mkdir()
    again = convert(tmp_path / "whole.bin", backbone, tmp_path / "again")[1]
    assert again.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.items())


def test_pretraining_goes_on_with_a_file_s_decoder(
    backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = write_pretrained(tmp_path / "best.ckpt", backbone, True, {})
    convert(tmp_path / "best.ckpt", backbone, tmp_path)
    untied, _ = load_pretraining(str(backbone), tmp_path / "whole.bin", untie_decoder=True, **LIMITS)
    assert untied.lm_head.decoder is not None and torch.equal(untied.lm_head.decoder.weight, state[DECODER])
    assert "--untie_decoder keeps it" not in caplog.text
    tied, _ = load_pretraining(str(backbone), tmp_path / "whole.bin", **LIMITS)
    assert tied.lm_head.decoder is None
    assert "lm_head.decoder.weight is not the word embeddings and is left out: --untie_decoder keeps it" in caplog.text
    from_the_backbone, _ = load_pretraining(str(backbone), untie_decoder=True, **LIMITS)
    words = from_the_backbone.longformer.word_embeddings.weight
    assert from_the_backbone.lm_head.decoder is not None
    assert torch.equal(from_the_backbone.lm_head.decoder.weight, words)
    assert from_the_backbone.lm_head.decoder.weight is not words


def test_a_converted_longformer_loads_strictly_into_the_published_classes(tokenizer: Any, tmp_path: Path) -> None:
    source = published_class(100)
    nn.init.normal_(source.lm_head.bias)
    del source.longformer.embeddings.item_position_embeddings
    source.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    config = save_longformer_ckpt.Config(str(tmp_path / "tiny"), tmp_path / "out.bin", max_token_num=98)
    written = torch.load(save_longformer_ckpt.main(config), weights_only=True)
    theirs = published_class(100)
    theirs.load_state_dict(written, strict=True)
    assert theirs.longformer.embeddings.position_ids.tolist() == [list(range(100))]
    for name in ("decoder.weight", "decoder.bias", "bias", "dense.weight"):
        assert torch.equal(written[f"lm_head.{name}"], source.state_dict()[f"lm_head.{name}"])
