"""The published code's calls: the snippet that loads its weights, its tokenizer and its models on padded inputs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from Recformer import library
from Recformer.config import RecformerConfig as FrozenConfig
from Recformer.model import RecformerModel as RaggedModel
from Recformer.published import RecformerConfig, RecformerForSeqRec, RecformerModel, RecformerTokenizer
from tests.forked import ROOT
from tests.Recformer.conftest import LIMITS

SNIPPET = """
import torch
from recformer import RecformerModel, RecformerConfig, RecformerForSeqRec

config = RecformerConfig.from_pretrained('allenai/longformer-base-4096')
config.max_attr_num = 3  # max number of attributes for each item
config.max_attr_length = 32 # max number of tokens for each attribute
config.max_item_embeddings = 51 # max number of items in a sequence +1 for cls token
config.attention_window = [64] * 12 # attention window for each layer

model = RecformerModel(config)
model.load_state_dict(torch.load('recformer_ckpt.bin'))

model = RecformerForSeqRec(config)
model.load_state_dict(torch.load('recformer_seqrec_ckpt.bin'), strict=False)
# strict=False because RecformerForSeqRec doesn't have lm_head
"""
DRILL, BITS, HOSE = (
    {"title": "Cordless drill", "brand": "Acme", "category": "Tools"},
    {"title": "Drill bits"},
    {"brand": "Acme", "title": "Garden hose, 20 m"},
)
HISTORIES = [[DRILL, BITS], [HOSE], [], [BITS, HOSE] * 30]


def write_longformer(folder: Path, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Write a tiny Longformer of 12 layers and return weights under the names of the published checkpoints."""
    from transformers import LongformerConfig, LongformerForMaskedLM

    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    tokens: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = LongformerConfig(**sizes, **tokens, max_position_embeddings=1100)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    state: dict[str, torch.Tensor] = LongformerForMaskedLM(config).state_dict()
    name = "longformer.embeddings.token_type_embeddings.weight"
    state |= {name: torch.randn(4, 8), "longformer.embeddings.item_position_embeddings.weight": torch.randn(51, 8)}
    return state | {"longformer.embeddings.position_ids": torch.arange(1100)[None]}


def test_the_snippet_that_loads_published_weights(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = write_longformer(tmp_path / "allenai/longformer-base-4096", tokenizer)
    inner = {name.removeprefix("longformer."): t for name, t in state.items() if name.startswith("longformer.")}
    torch.save(inner, tmp_path / "recformer_ckpt.bin")
    torch.save(state, tmp_path / "recformer_seqrec_ckpt.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "Recformer")
    scope: dict[str, Any] = {}
    exec(SNIPPET, scope)
    loaded = scope["model"].state_dict()
    assert "lm_head.decoder.bias" in state
    assert {name for name in state if "lm_head" not in name and "position_ids" not in name} == loaded.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_the_import_in_the_folder_and_from_the_root() -> None:
    lines = "from recformer import RecformerModel, RecformerTokenizer; print(RecformerTokenizer.__module__)"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT / "Recformer", env=plain, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["Recformer.published"]
    from Recformer.recformer import RecformerModel as Exported

    assert Exported is RecformerModel


@pytest.fixture
def config(backbone: Path) -> RecformerConfig:
    """One with its fields assigned."""
    made = RecformerConfig.from_pretrained(str(backbone))
    made.max_token_num = LIMITS["max_token_num"]
    made.max_attr_length = LIMITS["max_attr_length"]
    made.attention_window = 16
    return made


@pytest.fixture
def ragged(config: RecformerConfig) -> library.RecformerForSeqRec:
    """The library's recommender of three items, whose weights tell texts apart."""
    torch.manual_seed(0)
    model = library.RecformerForSeqRec(config.freeze())
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    model.init_item_embedding(F.pad(torch.randn(3, 16), (0, 0, 1, 0)))
    return model.eval()


def test_one_history_by_hand(backbone: Path, config: RecformerConfig, tokenizer: Any) -> None:
    config.max_attr_num = 2
    encoded = RecformerTokenizer.from_pretrained(str(backbone), config)([DRILL, BITS])
    assert " ".join(tokenizer.convert_ids_to_tokens(encoded.pop("input_ids"))) == (
        "[CLS] title drill bits title cord ##less drill brand ac ##me"
    )
    assert encoded == {
        "item_position_ids": [0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2],
        "token_type_ids": [0, 1, 2, 2, 1, 2, 2, 2, 1, 2, 2],
        "attention_mask": [1] * 11,
        "global_attention_mask": [1] + [0] * 10,
    }


def test_the_tokenizers_ids_are_those_of_the_ragged_path(
    backbone: Path, config: RecformerConfig, tokenizer: Any
) -> None:
    theirs = RecformerTokenizer.from_pretrained(str(backbone), config)
    expected = library.RecformerTokenizer(tokenizer, config.freeze())(HISTORIES).padded(tokenizer.pad_token_id)
    assert expected["input_ids"].shape == (4, 40)
    found = theirs(HISTORIES, return_tensor=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    lists = {name: values.tolist() for name, values in expected.items()}
    assert theirs(HISTORIES) == theirs.batch_encode(HISTORIES) == lists
    ready = [[theirs.encode_item(item) for item in history] for history in HISTORIES]
    assert theirs.batch_encode(ready, encode_item=False) == lists
    for history, row in zip(HISTORIES, range(4), strict=True):
        alone, length = theirs(history), int(expected["attention_mask"][row].sum())
        assert alone == {name: values[row][:length] for name, values in lists.items()}


def test_histories_are_padded_to_the_most_tokens(backbone: Path, config: RecformerConfig, tokenizer: Any) -> None:
    padded = RecformerTokenizer.from_pretrained(str(backbone), config)([[BITS]], pad_to_max=True, return_tensor=True)
    plain = RecformerTokenizer.from_pretrained(str(backbone), config)([BITS], return_tensor=True)
    assert {tuple(values.shape) for values in padded.values()} == {(1, 40)}
    assert all(torch.equal(padded[name][0, :4], plain[name]) for name in plain)
    fillings = {name: set(values[0, 4:].tolist()) for name, values in padded.items()}
    assert fillings == {
        "input_ids": {tokenizer.pad_token_id},
        "item_position_ids": {50},
        "token_type_ids": {3},
        "attention_mask": {0},
        "global_attention_mask": {0},
    }


def test_padded_inputs_have_the_ragged_path_s_outputs(
    backbone: Path, config: RecformerConfig, tokenizer: Any, ragged: library.RecformerForSeqRec
) -> None:
    model = RecformerForSeqRec(config).eval()
    model.longformer.load_state_dict(ragged.longformer.state_dict())
    assert ragged.item_embedding is not None
    model.init_item_embedding(ragged.item_embedding.weight[1:])
    theirs = RecformerTokenizer.from_pretrained(str(backbone), config)
    batch = library.RecformerTokenizer(tokenizer, config.freeze())(HISTORIES)
    candidates, labels = torch.tensor([[2, 0], [1, 2], [0, 1], [2, 1]]), torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        expected, scores = ragged.longformer(batch, all_tokens=True), ragged(batch)[:, 1:]
        for pad_to_max in (False, True):
            inputs = theirs(HISTORIES, pad_to_max=pad_to_max, return_tensor=True)
            out = model.longformer(**inputs)
            real = inputs["attention_mask"].bool()
            torch.testing.assert_close(out.last_hidden_state[real], expected.tokens, rtol=0, atol=1e-5)
            assert not out.last_hidden_state[~real].any()
            torch.testing.assert_close(out.pooler_output, expected.pooled, rtol=0, atol=1e-5)
            torch.testing.assert_close(model(**inputs), scores, rtol=0, atol=1e-5)
            found = model(**inputs, candidates=candidates)
            torch.testing.assert_close(found, scores.gather(1, candidates), rtol=0, atol=1e-5)
            torch.testing.assert_close(model(**inputs, labels=labels), F.cross_entropy(scores, labels))
        alone = model(**theirs(HISTORIES[0], return_tensor=True))
    torch.testing.assert_close(alone, scores[:1], rtol=0, atol=1e-5)


def test_the_sampled_loss_over_one_item_is_that_of_guessing(backbone: Path, config: RecformerConfig) -> None:
    config.item_num, config.finetune_negative_sample_size, config.mlm_weight = 1, 7, 0.1
    model = RecformerForSeqRec(config)
    model.init_item_embedding()
    inputs = RecformerTokenizer.from_pretrained(str(backbone), config)([[BITS], [HOSE]], return_tensor=True)
    loss = model(**inputs, labels=torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor(8.0).log())
    loss.backward()
    assert model.longformer.embeddings.word_embeddings.weight.grad is not None


def test_a_model_freezes_the_configuration(config: RecformerConfig) -> None:
    model = RecformerModel(config)
    config.max_attr_num = 9
    assert isinstance(model, RaggedModel) and isinstance(model.config, FrozenConfig)
    assert (model.config.max_attr_num, model.config.attention_window) == (3, (16, 16))


def test_what_the_published_calls_refuse(backbone: Path, config: RecformerConfig) -> None:
    inputs = RecformerTokenizer.from_pretrained(str(backbone), config)([[DRILL], [BITS]], return_tensor=True)
    with pytest.raises(ValueError, match="the item table is not set"):
        RecformerForSeqRec(config)(**inputs)
    for name in ("attention_mask", "global_attention_mask"):
        with pytest.raises(ValueError, match="global_attention_mask 1 for the first token alone"):
            RecformerModel(config)(**inputs | {name: inputs[name].flip(1)})
    config.max_atr_num = 2
    with pytest.raises(ValueError, match=r"RecformerConfig has no max_atr_num: did you mean max_attr_num\?"):
        RecformerModel(config)
