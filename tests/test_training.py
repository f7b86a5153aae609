"""Run folders, flags that contradict each other, and the Trainer's choice of the best epoch."""

import json
import os
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from seqrec import __version__
from seqrec.basics.errors import UserError
from seqrec.basics.files import hold
from seqrec.basics.paths import ROOT
from seqrec.basics.settings import absolute_from_root
from seqrec.comparison.report import format_text
from seqrec.comparison.results import read_run, read_runs
from seqrec.comparison.tables import compare_runs
from seqrec.data.batches import BatchKey, RowSampler
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.protocol import WINDOW, EvaluationProtocol
from seqrec.data.splits import leave_one_out
from seqrec.training.batches import BatchModule
from seqrec.training.checkpoint_io import AtomicCheckpointIO
from seqrec.training.checkpoints import load_state
from seqrec.training.folder import RunFolder
from seqrec.training.module import NextItemModule
from seqrec.training.options import TrainingConfig
from seqrec.training.record import RunRecord
from seqrec.training.trainer import complete, fit
from tests import forked
from tests.conftest import write_dataset


@pytest.fixture
def run(tiny: Dataset, tmp_path: Path) -> RunFolder[TrainingConfig]:
    return RunFolder("Some", tiny, "none", TrainingConfig(runs_dir=tmp_path), EvaluationProtocol())


def again(run: RunFolder[TrainingConfig], **changes: Any) -> RunFolder[TrainingConfig]:
    return replace(run, training=replace(run.training, **changes))


def test_a_folder_by_hand(run: RunFolder[TrainingConfig], tmp_path: Path) -> None:
    assert run.folder == tmp_path / "Some" / "tiny" / "none-seed42"
    assert run.group == "none"
    named = again(run, run_name="wide-seed7", seed=7)
    assert (named.name, named.group) == ("wide-seed7", "wide")


def test_first_run_and_resume_without_an_earlier_one(run: RunFolder[TrainingConfig]) -> None:
    for fresh in (run, again(run, resume=True, seed=1)):
        assert fresh.open(fresh.training)
        assert json.loads((fresh.folder / "config.json").read_text())["seed"] == fresh.training.seed


def test_the_metric_that_chooses_is_measured(tiny: Dataset, tmp_path: Path) -> None:
    config = TrainingConfig(runs_dir=tmp_path, best_metric="NDCG@3")
    with pytest.raises(ValueError, match=r"best_metric must be one of .*'NDCG@10'.* got 'NDCG@3'"):
        RunFolder("Some", tiny, "none", config, EvaluationProtocol()).open(config)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"metric_ks must .* hold 10.*got \(5,\)"):
        EvaluationProtocol(metric_ks=(5,))


def test_an_earlier_run_needs_a_decision(run: RunFolder[TrainingConfig]) -> None:
    assert run.open(run.training)
    with pytest.raises(ValueError, match=r"holds an earlier run: add --resume .* --overwrite .* or --run_name NAME"):
        run.open(run.training)
    (run.folder / "leftover").touch()
    resumed = again(run, resume=True, progress_bar=False)
    assert resumed.open(resumed.training)
    assert (run.folder / "leftover").exists()
    replaced = again(run, overwrite=True)
    assert replaced.open(replaced.training)
    assert not (run.folder / "leftover").exists()


def test_only_a_run_is_overwritten(run: RunFolder[TrainingConfig], tmp_path: Path) -> None:
    model, link, file = (run.folder.with_name(name) for name in ("model", "link", "file"))
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_text("weights")
    notes = run.folder.with_name("notes")
    notes.mkdir()
    (notes / "thesis.tex").write_text("text")
    assert run.open(run.training)
    link.symlink_to(run.folder)
    file.write_text("a letter")
    before = sorted(tmp_path.rglob("*"))
    for name in ("model", "link", "file", "notes"):
        other = again(run, overwrite=True, run_name=name)
        with pytest.raises(UserError, match=f"{name} (is a link or a file|holds something else).*another --run_name"):
            other.open(other.training)
    assert sorted(tmp_path.rglob("*")) == before
    for name in ("../../../esc", str(tmp_path), ".", "..", "a/b", ""):
        with pytest.raises(UserError, match="--run_name must be a plain name"):
            again(run, run_name=name)


def test_one_process_at_a_time_is_at_a_run(run: RunFolder[TrainingConfig], tmp_path: Path) -> None:
    run.folder.mkdir(parents=True)
    other = forked.start(hold_and_wait, run.folder / ".lock", tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert other.is_alive()
        time.sleep(0.01)
    for changes in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match=r"another process is at .*none-seed42: wait for it"):
            again(run, **changes).open(run.training)
    assert not (run.folder / "config.json").exists()
    other.kill()
    other.join()
    assert run.open(run.training)
    assert again(run, resume=True).open(run.training)  # this process has the lock already


def hold_and_wait(lock: Path, ready: Path) -> None:
    """Lock a file until this process is killed."""
    hold(lock, "taken")
    ready.touch()
    time.sleep(600)


def test_a_run_goes_on_where_the_project_has_moved(
    run: RunFolder[TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = run.folder.parent / "vectors"

    @dataclass
    class Flags:
        data_path: Path = ROOT / "data" / "tiny"
        embedding_dir: Path = ROOT / "embedding"
        weights: Path = outside

    assert run.open(Flags())
    written = json.loads((run.folder / "config.json").read_text())
    assert written["data_path"] == "data/tiny"
    assert written["weights"] == str(outside)
    monkeypatch.setattr("seqrec.basics.settings.ROOT", Path("/elsewhere"))
    moved = Flags(Path("/new/tiny"), Path("/elsewhere/embedding"))
    resumed = again(run, resume=True)
    assert resumed.open(moved)
    assert absolute_from_root(Flags(Path("data/tiny"))).data_path == Path("/elsewhere/data/tiny")
    with pytest.raises(UserError, match="embedding_dir was embedding and is /other"):
        resumed.open(Flags(Path("/new/tiny"), Path("/other")))


def test_a_checkpoint_that_has_moved_is_taken_for_where_it_lies(tmp_path: Path) -> None:
    old, new = (tmp_path / name / "checkpoints" for name in ("old", "new"))
    files = AtomicCheckpointIO()
    state = {
        "dirpath": str(old),
        "best_model_path": str(old / "best.ckpt"),
        "kth_best_model_path": str(old / "best.ckpt"),
        "last_model_path": "",
        "best_k_models": {str(old / "best.ckpt"): torch.tensor(0.5)},
        "best_model_score": torch.tensor(0.5),
    }
    files.save_checkpoint({"state_dict": {}, "callbacks": {"best": state, "stopping": {"wait": 1}}}, old / "last.ckpt")
    old.parent.rename(new.parent)
    callbacks = files.load_checkpoint(new / "last.ckpt")["callbacks"]
    best = ModelCheckpoint(new, "best", monitor="valid/NDCG@10")
    best.load_state_dict(callbacks["best"])
    assert best.best_model_score == 0.5
    assert best.best_k_models == {str(new / "best.ckpt"): 0.5}
    assert (best.best_model_path, best.last_model_path) == (str(new / "best.ckpt"), "")
    assert callbacks["stopping"] == {"wait": 1}


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("content", ["evil", "cut", "empty", "text", "list", "numbers"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.ckpt"
    held = {"evil": {"state_dict": Evil()}, "list": [1], "numbers": {"state_dict": {"a": 1}}}
    torch.save(held.get(content, {"state_dict": {"a": torch.zeros(1000)}}), path)
    if content in ("cut", "empty", "text"):
        path.write_bytes({"cut": path.read_bytes()[:2000], "empty": b"", "text": b"no tensors"}[content])
    for read in (load_state, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(UserError, match=r"best.ckpt .*damaged or no checkpoint.*--overwrite the run"):
            read(path)
    assert not (tmp_path / "executed").exists()


def test_a_kill_while_a_run_is_overwritten_leaves_it_unfinished(
    run: RunFolder[TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.open(run.training)
    (run.folder / "checkpoints").mkdir()
    (run.folder / "metrics.json").write_text("{}")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", die)
    replaced = again(run, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        replaced.open(replaced.training)
    monkeypatch.undo()
    assert (run.folder / "config.json").exists()
    assert not (run.folder / "metrics.json").exists()
    assert replaced.open(replaced.training)
    assert not (run.folder / "checkpoints").exists()


def test_other_flags_are_no_resume(run: RunFolder[TrainingConfig]) -> None:
    assert run.open(run.training)
    changed = again(run, resume=True, patience=3, run_name="none-seed42")
    with pytest.raises(
        ValueError, match=r"other flags \(patience was 10 and is 3, run_name was None and is none-seed42"
    ):
        changed.open(changed.training)


def test_other_data_is_no_resume(run: RunFolder[TrainingConfig], tmp_path: Path) -> None:
    assert run.open(run.training)
    resumed = again(run, resume=True)
    assert resumed.open(resumed.training)
    changed = replace(resumed, dataset=replace(run.dataset, sequences_sha256="other"))
    with pytest.raises(ValueError, match="was run on tiny as prepared at that time, which has changed since"):
        changed.open(changed.training)
    with pytest.raises(ValueError, match="was run on tiny, more as prepared at that time"):
        resumed.open(resumed.training, replace(run.dataset, name="more"))


def test_other_item_vectors_are_no_resume(run: RunFolder[TrainingConfig]) -> None:
    first = replace(run, vectors_sha256="a" * 64)
    assert first.open(first.training)
    resumed = replace(again(first, resume=True), vectors_sha256="b" * 64)
    with pytest.raises(ValueError, match=r"other item vectors `none` \(sha256 aaa.*than there are now \(bbb.*restore"):
        resumed.open(resumed.training)
    resumed = again(first, resume=True)
    assert resumed.open(resumed.training)


def test_a_finished_run_is_left_as_it_is(run: RunFolder[TrainingConfig]) -> None:
    assert run.open(run.training)
    (run.folder / "metrics.json").write_text("{}")
    resumed = again(run, resume=True)
    assert not resumed.open(resumed.training)


def test_other_processes_leave_the_folder_to_the_first(
    run: RunFolder[TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.open(run.training)
    monkeypatch.setattr("seqrec.training.folder.is_first_process", lambda: False)
    second = again(run, overwrite=True)
    assert run.open(run.training)
    assert second.open(second.training)
    assert (run.folder / "config.json").exists()
    (run.folder / "metrics.json").touch()
    resumed = again(run, resume=True)
    assert not resumed.open(resumed.training)


def test_dropout_is_an_epochs_and_a_processs_own(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, TrainingConfig())

    def drawn(epoch: int, rank: int) -> float:
        trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        record.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
        return torch.rand(1).item()

    epochs_and_ranks = [(epoch, rank) for epoch in range(3) for rank in range(3)]
    first = [drawn(*which) for which in epochs_and_ranks]
    assert len(set(first)) == 9
    assert [drawn(*which) for which in epochs_and_ranks] == first


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--eval_every 5 is more than --num_epochs 3"):
        TrainingConfig(eval_every=5, num_epochs=3)
    with pytest.raises(ValueError, match="--patience must be at least 1, got 0"):
        TrainingConfig(patience=0)
    with pytest.raises(ValueError, match="--valid_users must be at least 1, got 0"):
        TrainingConfig(valid_users=0)
    with pytest.raises(ValueError, match="--resume keeps an earlier run and --overwrite deletes it"):
        TrainingConfig(resume=True, overwrite=True)
    with pytest.raises(ValueError, match="--sample_size must be K > 0 negatives, or -1 for all items, got 0"):
        EvaluationProtocol(sample_size=0)
    with pytest.raises(ValueError, match=r"--sample_size must be .* got -5"):
        EvaluationProtocol(sample_size=-5)
    with pytest.raises(ValueError, match="--candidate_seed is for --sample_size K"):
        EvaluationProtocol(candidate_seed=1)
    with pytest.raises(ValueError, match="--filter_seen is for full ranking"):
        EvaluationProtocol(sample_size=10, filter_seen=True)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best.ckpt does not exist.*run it with --resume"):
        load_state(tmp_path / "best.ckpt")


class Moody(NextItemModule):
    """Ranks by an item's distance from a place that depends on the epoch: right in the epoch that is told."""

    good: Tensor
    trained: Tensor

    def __init__(self, targets: Tensor, good_epochs: set[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("good", torch.tensor(0.0))
        self.register_buffer("trained", torch.tensor(-1))
        self.targets, self.good_epochs = targets, good_epochs

    def user_vectors(self, inputs: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.targets[inputs % len(self.targets)], 41) * (2 * self.good - 1)

    def item_vectors(self) -> Tensor:
        return torch.eye(41)

    def training_step(self, batch: BatchKey) -> Tensor:
        self.good.fill_(float(self.current_epoch in self.good_epochs))
        self.trained.fill_(self.current_epoch)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], 0.1)


class Keys(torch.utils.data.Dataset[BatchKey]):
    def __getitem__(self, key: BatchKey) -> BatchKey:
        return key


def make(run: RunFolder[TrainingConfig], good_epochs: set[int]) -> tuple[Moody, BatchModule]:
    split = run.protocol.hold_out(run.dataset)
    sampler = RowSampler(split.train.lengths, batch_size=32, shuffle=True)
    lengths = lambda histories: histories.lengths  # noqa: E731
    data = BatchModule(
        run.dataset,
        split,
        run.protocol,
        Keys(),
        sampler,
        lambda histories, rows: torch.from_numpy(rows),
        eval_lengths=lengths,
        eval_max_tokens=200,
    )
    return Moody(torch.from_numpy(split.valid.targets), good_epochs), data


def test_the_best_epoch_is_chosen_and_tested(run: RunFolder[TrainingConfig]) -> None:
    run = again(run, num_epochs=9, patience=3, accelerator="cpu", progress_bar=False)
    module, data = make(run, good_epochs={2})
    complete(run, module, data)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["best_epoch"] == 3
    assert metrics["epochs"] == 6  # epochs 4, 5 and 6 were not better
    assert metrics["valid"]["NDCG@10"] == 1
    assert metrics["valid"]["AUC"] == 1
    assert int(module.trained) == 2  # the weights of the best epoch, not of the last
    ranks = np.load(run.folder / "ranks-test.npy")
    assert ranks.shape == (90,)
    assert metrics["test"]["MRR"] == pytest.approx((1 / (ranks + 1)).mean())
    assert metrics["protocol"]["num_items"] == 40
    assert metrics["versions"] == {
        "seqrec": __version__,
        "torch": torch.__version__,
        "pytorch-lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }


class Scored(Moody):
    """Validates with given scores, one an epoch."""

    scores = (0.25, 0.25 + 1e-10, 0.125)

    def _finish(self, stage: str) -> None:
        super()._finish(stage)
        if stage == "valid":
            self.results |= {"NDCG@10": self.scores[self.current_epoch]}
            self.log("valid/NDCG@10", self.results["NDCG@10"])


def test_the_number_that_keeps_a_checkpoint_chooses_the_epoch(
    run: RunFolder[TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    # float64 tells the first two scores apart, and float32, in which Lightning keeps a checkpoint, does not.
    assert np.float32(Scored.scores[0]) == np.float32(Scored.scores[1])
    run = again(run, num_epochs=3, accelerator="cpu", progress_bar=False)
    moody, data = make(run, good_epochs=set())
    module, record = fit(Scored(moody.targets, set()), data, run.training, run.folder)
    assert record.best_epoch == 1
    assert record.best["NDCG@10"] == Scored.scores[0]
    assert int(module.trained) == 0  # the weights of the epoch that was chosen


def test_a_run_that_counted_epochs_from_0_is_not_resumed(run: RunFolder[TrainingConfig]) -> None:
    record = RunRecord(run.folder, run.training)
    record.load_state_dict(record.state_dict())
    earlier = {key: value for key, value in record.state_dict().items() if key != "best_score"}
    with pytest.raises(UserError, match="counted epochs from 0: --overwrite it"):
        record.load_state_dict(earlier)


def test_a_score_to_beat_and_rare_validation(run: RunFolder[TrainingConfig]) -> None:
    config = replace(run.training, num_epochs=8, eval_every=2, patience=2, accelerator="cpu", progress_bar=False)
    module, data = make(run, good_epochs=set())
    module, record = fit(module, data, config, run.folder, to_beat=0.5)
    # Epochs 2 and 4 are validated, neither reaches 0.5: patience is over, and the better of them is kept.
    assert len(record.history) == 4
    assert record.best_epoch == 2
    assert int(module.trained) == 1
    assert [("valid/NDCG@10" in row) for row in record.history] == [False, True, False, True]


def test_sampled_candidates_and_seen_items_reach_the_ranking(run: RunFolder[TrainingConfig]) -> None:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    view = leave_one_out(run.dataset).valid
    histories = [set(view.items[a:b].tolist()) for a, b in zip(view.starts, view.ends, strict=True)]
    unseen = [40 - len(seen - {target}) for seen, target in zip(histories, view.targets.tolist(), strict=True)]
    for protocol, expected in (
        (EvaluationProtocol(), [40] * 90),
        (EvaluationProtocol(filter_seen=True), unseen),
        (EvaluationProtocol(sample_size=7), [8] * 90),
    ):
        module, data = make(replace(run, protocol=protocol), set())
        trainer.validate(module, datamodule=data, verbose=False)
        assert module.recorder.candidates.tolist() == expected


def test_every_event_after_a_moment_is_ranked_and_every_user_counts_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    times = [np.sort(generator.integers(0, 100, size=9)).tolist() for _ in range(30)]
    histories = [generator.integers(1, 41, size=9).tolist() for _ in times]
    dataset = load_dataset(write_dataset(tmp_path / "timed", histories, 40, times))
    protocol = EvaluationProtocol(split="global_time", time_target="successive")
    training = TrainingConfig(num_epochs=1, accelerator="cpu", progress_bar=False, runs_dir=tmp_path / "runs")
    run = RunFolder("Some", dataset, "none", training, protocol)
    module, data = make(run, good_epochs=set())
    assert run.open(training)
    complete(run, module, data)
    found = read_run(run.folder)  # which compares metrics.json with the ranks
    test = protocol.hold_out(dataset).test
    assert len(found.ranks) == len(test) > len(found.users) == len(set(test.users.tolist()))
    ranks = {user: found.ranks[test.users == user] for user in found.users}
    expected = np.mean([np.mean(1 / (own + 1.0)) for own in ranks.values()])
    assert found.test["MRR"] == pytest.approx(expected)
    comparison = compare_runs(tmp_path / "runs", tmp_path, "timed")
    assert comparison.tables[0].users == len(ranks)
    assert "several targets" in comparison.tables[0].slices_note
    assert "each item of every user's after one moment" in format_text(comparison)


def train(run: RunFolder[TrainingConfig]) -> None:
    """Train and test, alone or as one of the processes that share out each batch."""
    module, data = make(run, good_epochs={1})
    assert run.open(run.training)
    complete(run, module, data)


def test_two_processes_test_as_one(run: RunFolder[TrainingConfig], tmp_path: Path) -> None:
    run = again(run, num_epochs=3, accelerator="cpu", progress_bar=False)
    both = again(run, devices=2, strategy="ddp", run_name="both")
    forked.run_pair(train, both, folder=tmp_path)
    train(run)
    np.testing.assert_array_equal(*(np.load(r.folder / "ranks-test.npy") for r in (run, both)))
    alone, together = (json.loads((r.folder / "metrics.json").read_text()) for r in (run, both))
    for key in ("valid", "test", "other", "best_epoch", "epochs"):
        assert alone[key] == together[key]
    np.testing.assert_array_equal(*(np.load(r.folder / "ranks-other.npy") for r in (run, both)))


def test_every_run_is_tested_with_what_users_have_had_and_without(run: RunFolder[TrainingConfig]) -> None:
    run = again(run, num_epochs=2, accelerator="cpu", progress_bar=False)
    left_out = again(replace(run, protocol=EvaluationProtocol(filter_seen=True)), run_name="left-out-seed42")
    for each in (run, left_out):
        train(each)
    tests = {
        (folder.name, seen): read_run(folder, seen)
        for folder in (run.folder, left_out.folder)
        for seen in ("own", "kept", "left_out")
    }
    for seen, filters in (("kept", False), ("left_out", True)):
        one, other = tests[run.folder.name, seen], tests["left-out-seed42", seen]
        assert one.protocol == other.protocol and one.protocol["filter_seen"] == filters
        np.testing.assert_array_equal(one.ranks, other.ranks)
        assert one.test == other.test
    assert tests[run.folder.name, "own"].test == tests[run.folder.name, "kept"].test
    assert tests["left-out-seed42", "own"].test == tests["left-out-seed42", "left_out"].test
    without, among = (tests[run.folder.name, seen].ranks for seen in ("left_out", "kept"))
    assert (without <= among).all() and not np.array_equal(without, among)


def test_a_run_that_was_tested_in_one_way_is_left_out_of_the_other(
    run: RunFolder[TrainingConfig], caplog: pytest.LogCaptureFixture
) -> None:
    run = again(run, num_epochs=2, accelerator="cpu", progress_bar=False)
    sampled = again(replace(run, protocol=EvaluationProtocol(sample_size=7)), run_name="sampled-seed42")
    for each in (run, sampled):
        train(each)
    with pytest.raises(UserError, match="was tested in one way alone"):
        read_run(sampled.folder, "left_out")
    runs = read_runs([run.folder, sampled.folder], "left_out")
    assert [r.folder for r in runs] == [run.folder] and "left out: 1 runs" in caplog.text
    (run.folder / "ranks-other.npy").write_bytes((run.folder / "ranks-test.npy").read_bytes())
    with pytest.raises(UserError, match=r"its ranks-other\.npy gives"):
        read_run(run.folder, "left_out")


def test_few_users_train_and_all_are_evaluated(tiny: Dataset) -> None:
    whole, some, fewer = (EvaluationProtocol(train_users=count).hold_out(tiny) for count in (None, 20, 5))
    assert [len(split.train) for split in (whole, some, fewer)] == [len(whole.train), 20, 5]
    assert set(fewer.train.users) < set(some.train.users) < set(whole.train.users)
    for split in (some, fewer):
        assert np.array_equal(split.valid.targets, whole.valid.targets)
        assert np.array_equal(split.test.targets, whole.test.targets)


def test_a_protocol_says_all_that_decides_it(tiny: Dataset) -> None:
    plain, timed = (
        EvaluationProtocol(filter_seen=True),
        EvaluationProtocol(split="global_time", split_quantile=0.8, time_target="first"),
    )
    assert plain.record == {"split": "leave_one_out", "sample_size": -1, "filter_seen": True}
    assert EvaluationProtocol(candidate_seed=1, sample_size=9).record != EvaluationProtocol(sample_size=9).record
    assert (timed.record["split_quantile"], timed.record["time_target"]) == (0.8, "first")
    window = EvaluationProtocol(last_k_eval_test=4, item_start_position=-9, item_end_position=-1)
    assert [window.record[name] for name in WINDOW] == [4, -9, -1]
    few = EvaluationProtocol(train_users=7)
    assert few.record["train_users"] == 7
    protocols = [plain, timed, window, few]
    assert [EvaluationProtocol.of(protocol.record) for protocol in protocols] == protocols
    assert np.array_equal(plain.hold_out(tiny).test.targets, leave_one_out(tiny).test.targets)
    with pytest.raises(ValueError, match="has no timestamps"):
        timed.hold_out(tiny)
    with pytest.raises(ValueError, match="are for --split global_time"):
        EvaluationProtocol(time_target="first")
    with pytest.raises(ValueError, match="are for --split leave_one_out"):
        EvaluationProtocol(split="users", item_start_position=3)
    with pytest.raises(ValueError, match="--last_k_eval_test must be at least 2, got 1"):
        EvaluationProtocol(last_k_eval_test=1)
    with pytest.raises(ValueError, match=r"no user .* has more than 2 events from 999 to the end"):
        EvaluationProtocol(item_start_position=999).hold_out(tiny)
    with pytest.raises(ValueError, match=r"--split_quantile must lie in \(0, 1\), got 1"):
        EvaluationProtocol(split="global_time", split_quantile=1)
