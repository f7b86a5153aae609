"""Folders of models and checkpoints as others may have made them: one sentence each, and no memory for empty claims."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from Recformer.backbone import load_backbone
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.text.backbones import find_backbone
from seqrec.text.weights import load_folder, save_checkpoint

BERT: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    BertModel(BertConfig(vocab_size=30522, **BERT)).save_pretrained(folder)
    for file in find_backbone("minilm").iterdir():
        if file.name.startswith(("tokenizer", "vocab", "special")):
            shutil.copy(file, folder)
    return folder


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return Path(shutil.copytree(bert, tmp_path / "bert"))


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    source = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in source.items() if v != "ABSENT"}))


def test_a_whole_one_is_read(copy: Path) -> None:
    model, _ = load_backbone(str(copy), max_token_num=100)
    assert model.config.max_position_embeddings == 100
    source = load_file(copy / "model.safetensors")
    assert torch.equal(
        model.state_dict()["embeddings.word_embeddings.weight"], source["embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number from 1"),
        ({"num_attention_heads": 3}, "hidden_size 8 is no multiple of 3"),
        ({"hidden_size": -384}, "hidden_size must be a whole number from 1 to 65,536, got -384"),
        ({"hidden_size": "abc"}, "'hidden_size' is \"abc\", expected int"),
        ({"hidden_size": 10**9}, "hidden_size must be a whole number from 1"),
        ({"hidden_size": "ABSENT"}, "has no 'hidden_size', expected int"),
        ({"hidden_size": None}, "'hidden_size' is null"),
        ({"hidden_size": 8192}, "should be .*8192"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected 1 to 1000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 90}, r"encoder\.layer\.2\..* should be"),
        ({"vocab_size": 10**9}, "vocab_size must be a whole number from 1"),
        ({"vocab_size": 16_000_000}, "word_embeddings.weight should be"),
        ({"max_position_embeddings": 10**6}, "position_embeddings.weight should be"),
        ({"max_position_embeddings": 2**70}, "max_position_embeddings must be a whole number"),
        ({"model_type": "gpt2"}, "of type 'gpt2', expected one of"),
        ({"model_type": ["bert"]}, "'model_type' is a list of 1, expected str"),
        ({"hidden_act": ["gelu"]}, r"config\.json beside it, can't be read \(.*hidden_act"),
        ({"hidden_act": "swishy"}, "hidden_act must be one of"),
        ({"layer_norm_eps": "tiny"}, r"config\.json beside it, can't be read \(.*layer_norm_eps"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps must be a number above 0"),
        ({"hidden_dropout_prob": 2}, r"hidden_dropout_prob must be a number in \[0, 1\)"),
        ({"pad_token_id": "zero"}, r"config\.json beside it, can't be read \(.*pad_token_id"),
        ({"pad_token_id": 10**6}, "pad_token_id must be below vocab_size"),
        ({"position_offset": "2", "max_token_num": 9}, "position_offset is '2', expected a whole number"),
        (
            {"position_offset": 0, "max_token_num": 9, "attention_window": {"a": 1}},
            "attention_window must be whole numbers",
        ),
        ({"model_type": "modernbert", "global_attn_every_n_layers": 0}, r"config\.json"),
        ({"model_type": "modernbert", "layer_types": ["full_attention"]}, r"config\.json"),
        (
            {"model_type": "modernbert", "rope_parameters": [1]},
            r"config\.json beside it, can't be read \(.*rope_parameters",
        ),
    ],
)
def test_configurations_are_refused_by_name(copy: Path, changes: dict[str, Any], message: str) -> None:
    change_config(copy, changes)
    with pytest.raises(UserError, match=message):
        load_backbone(str(copy), max_token_num=9)


@pytest.mark.parametrize("content", [b"[]", b"null", b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_configuration_is_refused(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json .*: download the model again"):
        load_backbone(str(copy))


def test_a_damaged_tokenizer_is_refused(copy: Path) -> None:
    for content in ("", "[]", '{"model": 3}'):
        (copy / "tokenizer.json").write_text(content)
        with pytest.raises(
            UserError, match=r"the tokenizer in .*bert, or .*, can't be read .*: download the model again"
        ):
            load_backbone(str(copy))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no 'weight_map'"),
        ([], "holds a list of 0, expected an object"),
        ({"weight_map": []}, "'weight_map' is a list of 0"),
        ({"weight_map": {}}, "names no file of weights"),
        ({"weight_map": {"a": 3}}, "names 3, expected a file of weights"),
        ({"weight_map": {"a": "../secret.safetensors"}}, "a file of weights must be a plain name"),
        ({"weight_map": {"a": "/etc/passwd"}}, "a file of weights must be a plain name"),
        ({"weight_map": {"a": "gone.safetensors"}}, r"no checkpoint .*gone\.safetensors"),
    ],
)
def test_indices_are_refused_by_name(copy: Path, index: Any, message: str) -> None:
    (copy / "model.safetensors").rename(copy.parent / "secret.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load_folder(copy)


def test_shards_are_read(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    places = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(state)}
    for part in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == part}, copy / part)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert load_folder(copy).keys() == state.keys()
    (copy / "part-1.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"part-1\.safetensors"):
        load_folder(copy)


def test_updates_alone_are_no_backbone(copy: Path, tmp_path: Path) -> None:
    update = "encoder.layer.0.attention.self.query.lora_{}.default.weight"
    state = {update.format("A"): torch.ones(1, 8), update.format("B"): torch.ones(8, 1), "lora_scale": torch.ones(())}
    save_checkpoint(tmp_path / "updates.bin", state)
    with pytest.raises(UserError, match=r"updates\.bin holds low-rank updates, .*give it as --checkpoint"):
        load_backbone(str(copy), tmp_path / "updates.bin")
