"""Whole pretraining runs on a tiny random backbone: killed, sharded, converted, continued."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.convert_pretrain_ckpt import Config as ConvertConfig
from Recformer.convert_pretrain_ckpt import main as convert
from Recformer.options import PretrainConfig as Config
from Recformer.pretrain_module import read_domains
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import load_embeddings
from seqrec.text.options import EncoderOptions
from seqrec.training.checkpoints import consolidate, load_state
from tests import forked
from tests.conftest import write_dataset
from tests.interrupted import assert_same_run
from tests.Recformer.conftest import LIMIT_FLAGS, LIMITS


@pytest.fixture(scope="module")
def held_out_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain of its own: 30 users over 25 items."""
    generator = np.random.default_rng(3)
    histories = [generator.integers(1, 26, size=5).tolist() for _ in range(30)]
    return write_dataset(tmp_path_factory.mktemp("data") / "other", histories, 25)


def flags(corpus: Path, valid: Path, backbone: Path, runs: Path, *more: str) -> list[str]:
    paths = ["--data_path", corpus, "--valid_path", valid, "--model_name_or_path", backbone, "--runs_dir", runs]
    fixed = ["--num_epochs", "2", "--lr", "0.003", "--no-progress_bar", "--batch_size", "8", "--contrast_batch", "16"]
    return [*map(str, paths), *fixed, *LIMIT_FLAGS, "--valid_step", "4", "--accelerator", "cpu", *more]


NAME = "Recformer/other/pretraining-on-tiny-seed42"


@pytest.fixture(scope="module")
def pretrained(tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a pretraining run."""
    folder = tmp_path_factory.mktemp("pretrained")
    given = flags(tiny_path, held_out_path, backbone, folder)
    forked.run_script("Recformer/pretrain.py", *given, output=folder / "log")
    return folder


def test_pretraining_learns_and_what_it_writes_can_be_finetuned(pretrained: Path, backbone: Path) -> None:
    rows = [line.split(",") for line in (pretrained / NAME / "logs/metrics.csv").read_text().splitlines()]
    loss = rows[0].index("train/contrast")
    assert len(rows) == 1 + -(-2 * 6 // 4)  # 2 epochs of 6 batches, in rounds of 4
    assert float(rows[-1][loss]) < float(rows[1][loss])
    model, _ = load_backbone(str(backbone), attention_window=64, **LIMITS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, pretrained / NAME / "checkpoints/best.ckpt")
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(moved) > len(before) / 2


def test_a_killed_pretraining_ends_as_if_it_had_not_been(
    pretrained: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--resume")
    for done in (1, 2):
        curve = tmp_path / NAME / "logs/metrics.csv"
        process = forked.start_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
        while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > done):
            time.sleep(0.01)
        process.kill()
        process.join()
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    assert_same_run(pretrained / NAME, tmp_path / NAME)


@pytest.fixture(scope="module")
def sharded(tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a pretraining run under ZeRO-2 on the CPU."""
    folder = tmp_path_factory.mktemp("sharded")
    given = flags(tiny_path, held_out_path, backbone, folder, "--strategy", "deepspeed_stage_2")
    forked.run_script("Recformer/pretrain.py", *given, output=folder / "log")
    return folder


def test_zero_2_trains_as_one_process_does(sharded: Path, pretrained: Path) -> None:
    last = [load_state(folder / NAME / "checkpoints/last.ckpt") for folder in (sharded, pretrained)]
    assert last[0].keys() == last[1].keys()
    for name in last[0]:
        torch.testing.assert_close(last[0][name], last[1][name], rtol=0, atol=2e-3)


def test_zero_2_to_a_finetuned_model(
    sharded: Path, tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "deepspeed"
    shutil.copytree(sharded / NAME / "checkpoints/best.ckpt", folder)
    # As its users run it: `python zero_to_fp32.py . pytorch_model.bin` in the folder.
    subprocess.run(
        [sys.executable, "zero_to_fp32.py", ".", "pytorch_model.bin"], cwd=folder, check=True, capture_output=True
    )
    outputs = []
    for number, source in enumerate(
        (folder, folder / "pytorch_model.bin", folder / "pytorch_model.bin/pytorch_model.bin")
    ):
        out = tmp_path / f"{number}.bin"
        forked.run_script(
            "Recformer/convert_pretrain_ckpt.py",
            *("--pretrained_ckpt_path", source, "--longformer_type", backbone),
            *("--recformer_output_path", out, "--recformerseqrec_output_path", tmp_path / f"{number}-whole.bin"),
            output=tmp_path / "log",
        )
        outputs.append(torch.load(out, weights_only=True))
    expected = load_state(sharded / NAME / "checkpoints/best.ckpt")
    for output in outputs:
        assert output.pop("embeddings.position_ids").shape == (1, 64)
        for name, tensor in output.items():
            assert torch.equal(tensor, expected[f"model.longformer.{name}"]), name
    folder_model, _ = load_backbone(str(tmp_path / "0"), **LIMITS)
    assert all(torch.equal(tensor, outputs[0][name]) for name, tensor in folder_model.state_dict().items())
    forked.run_script(
        "Recformer/finetune.py",
        *("--data_path", tiny_path, "--model_name_or_path", backbone, "--pretrain_ckpt", tmp_path / "0.bin"),
        *("--runs_dir", tmp_path / "runs", "--embedding_dir", tmp_path / "embedding", "--no-progress_bar"),
        *("--num_epochs", "1", "--accelerator", "cpu", *LIMIT_FLAGS),
        output=tmp_path / "log",
    )
    vectors = [load_embeddings(name, tiny, tmp_path / "embedding") for name in ("longformer", "pretrain", "finetune")]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-4


def test_a_killed_zero_2_run_ends_as_if_it_had_not_been(
    sharded: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--strategy", "deepspeed_stage_2", "--resume")
    curve = tmp_path / NAME / "logs/metrics.csv"
    process = forked.start_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > 1):
        time.sleep(0.01)
    process.kill()
    process.join()
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    for name in ("best", "last"):
        states = [load_state(folder / NAME / f"checkpoints/{name}.ckpt") for folder in (sharded, tmp_path)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    metrics = [json.loads((folder / NAME / "metrics.json").read_text()) for folder in (sharded, tmp_path)]
    for key in ("test", "valid", "best_epoch", "epochs"):
        assert metrics[0][key] == metrics[1][key]


def test_gradients_are_clipped_under_mixed_precision(
    tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--precision", "bf16-mixed", "--num_epochs", "1")
    forked.run_script("Recformer/pretrain.py", *given, "--gradient_clip_val", "1", output=tmp_path / "log")
    assert all(weight.isfinite().all() for weight in load_state(tmp_path / NAME / "checkpoints/best.ckpt").values())


def pretrain_in_two(given: list[str], folder: Path, until: int | None = None) -> None:
    """Pretrain in two processes, which are killed once so many rounds are done."""
    command = (forked.run_as_main, str(forked.ROOT / "Recformer/pretrain.py"), [*given, "--devices", "2"])
    if until is None:
        forked.run_pair(*command, folder=folder)
        return
    processes = forked.start_pair(*command, folder=folder)
    curve = folder / NAME / "logs/metrics.csv"
    while not (curve.is_file() and len(curve.read_text().splitlines()) > until):
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.join()


def test_fsdp_trains_as_ddp_does_also_when_it_is_killed(
    tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    for strategy in ("ddp", "fsdp"):
        (tmp_path / strategy).mkdir()
    given = {
        name: flags(tiny_path, held_out_path, backbone, tmp_path / name, "--strategy", name) for name in ("ddp", "fsdp")
    }
    pretrain_in_two(given["ddp"], tmp_path / "ddp")
    pretrain_in_two([*given["fsdp"], "--resume"], tmp_path / "fsdp", until=1)
    pretrain_in_two([*given["fsdp"], "--resume"], tmp_path / "fsdp")
    states = {
        (strategy, name): load_state(tmp_path / strategy / NAME / f"checkpoints/{name}.ckpt")
        for strategy in given
        for name in ("best", "last")
    }
    # Which round is best may hang on the last bit of two users' scores, and processors round differently.
    for name, state in states.items():
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in states["ddp", "best"].items()}, name
    for key in states["ddp", "last"]:
        torch.testing.assert_close(states["ddp", "last"][key], states["fsdp", "last"][key], rtol=0, atol=2e-3, msg=key)
    curves = [pl.read_csv(tmp_path / s / NAME / "logs/metrics.csv")["train/loss"].to_list() for s in ("ddp", "fsdp")]
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)


def test_a_sharded_checkpoint_that_is_more_than_data_is_not_read(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deepspeed"
    shutil.copytree(sharded / NAME / "checkpoints/best.ckpt", folder)
    file = next(folder.glob("checkpoint/*model_states.pt"))
    torch.save({"module": {}, "code": Path()}, file)
    with pytest.raises(ValueError, match="no complete DeepSpeed checkpoint"):
        consolidate(folder)
    with pytest.raises(ValueError, match="give the folder that has the file `latest`"):
        consolidate(tmp_path)


def test_conversion_says_what_does_not_fit(pretrained: Path, backbone: Path, tmp_path: Path) -> None:
    best = load_state(pretrained / NAME / "checkpoints/best.ckpt")
    del best["model.longformer.encoder.layer.0.output.dense.weight"]
    torch.save({f"_forward_module.{name}": tensor for name, tensor in best.items()}, tmp_path / "broken.bin")
    config = ConvertConfig(tmp_path / "broken.bin", None, str(backbone), tmp_path / "a.bin", tmp_path / "b.bin")
    with pytest.raises(ValueError, match=r"1 missing: longformer.encoder.layer.0.output.dense.weight"):
        convert(config)
    assert not (tmp_path / "a.bin").exists()


def test_frozen_word_embeddings_come_from_the_backbone_only_where_they_are_missing(
    pretrained: Path, backbone: Path, tmp_path: Path
) -> None:
    state = load_state(pretrained / NAME / "checkpoints/best.ckpt")
    word = "model.longformer.embeddings.word_embeddings.weight"
    plain = load_backbone(str(backbone), attention_window=64, **LIMITS)[0].embeddings.word_embeddings.weight
    for kept in (True, False):
        given = {name: tensor for name, tensor in state.items() if kept or name != word}
        torch.save({"module": {f"_forward_module.{name}": tensor for name, tensor in given.items()}}, tmp_path / "a.pt")
        convert(ConvertConfig(tmp_path / "a.pt", None, str(backbone), tmp_path / "a.bin", tmp_path / "b.bin"))
        found = torch.load(tmp_path / "a.bin", weights_only=True)["embeddings.word_embeddings.weight"]
        assert torch.equal(found, state[word] if kept else plain)


def test_pretraining_goes_on_from_another_run(
    pretrained: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    last = pretrained / NAME / "checkpoints/last.ckpt"
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--num_epochs", "3", "--ckpt", str(last))
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    curves = [
        [line.split(",") for line in (folder / NAME / "logs/metrics.csv").read_text().splitlines()]
        for folder in (pretrained, tmp_path)
    ]
    assert len(curves[0]) < len(curves[1])
    assert curves[1][: len(curves[0])] == curves[0]
    with pytest.raises(RuntimeError, match=r"--ckpt .*nowhere does not exist: give checkpoints/last.ckpt"):
        given = [*given, "--overwrite", "--ckpt", str(tmp_path / "nowhere")]
        forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")


def test_each_user_of_a_corpus_has_a_domain() -> None:
    raw_ids = pl.DataFrame({"raw_id": ["a@tools", "b@x@sports", "c@tools"]})
    corpus: Any = SimpleNamespace(name="x", manifest={"source": {"kind": "corpus"}}, user_table=lambda: raw_ids)
    assert read_domains(corpus).tolist() == [2, 1, 2]
    corpus.manifest["source"]["kind"] = "atomic"
    with pytest.raises(ValueError, match=r"--domains_apart: x was not made by `scripts/prepare.py corpus`"):
        read_domains(corpus)


def test_bad_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="valid_dataset"):
        Config()
    with pytest.raises(ValueError, match="mlm_probability"):
        Config(valid_dataset="x", mlm_probability=1.0)
    with pytest.raises(ValueError, match="valid_step"):
        Config(valid_dataset="x", valid_step=0)
    with pytest.raises(ValueError, match="window"):
        Config(valid_dataset="x", window=0)
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"--dropout must lie in \[0, 1\), got"):
            EncoderOptions(dropout=rate)
