"""What a run of any family over item ids is to do: stop early, survive kills, recommend as it was tested.

A family's tests derive a class from `IdFamilyRuns` and say its folder and flags under which the tiny dataset's run
stops early.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.training.checkpoints import load_state
from tests import forked
from tests.conftest import write_dataset
from tests.interrupted import (
    Command,
    assert_same_run,
    assert_same_tensors,
    kill_around_any_write,
    kill_at_random_moments,
    lose_the_results,
)
from tests.recommending import assert_recommends_as_it_was_tested
from tests.two_processes import assert_two_are_one, id_steps


class IdFamilyRuns:
    """Tests of whole runs."""

    family: ClassVar[str]
    flags: ClassVar[tuple[str, ...]]

    @pytest.fixture(scope="class")
    def straight(self, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
        """A run that nothing interrupted."""
        command = Command(self.family, tiny_path, tmp_path_factory.mktemp("straight"), self.flags)
        command.run()
        return command

    def test_a_run_stops_early(self, straight: Command) -> None:
        metrics = straight.metrics()
        assert 5 < metrics["epochs"] < 30
        assert metrics["best_epoch"] == metrics["epochs"] - 4  # a patience of 4, epochs counted from 1
        assert metrics["test"]["users"] == 90
        assert metrics["vectors_sha256"] is None
        assert metrics["test"]["tied_users"] == 0

    def test_a_file_gets_one_line_an_epoch_and_no_bar(self, tiny_path: Path, tmp_path: Path) -> None:
        command = Command(self.family, tiny_path, tmp_path / "runs", (*self.flags, "--num_epochs", "3"))
        arguments = [word for word in command.arguments() if word != "--no-progress_bar"]
        forked.run_script(*arguments, output=tmp_path / "said")
        said = (tmp_path / "said").read_bytes()
        assert b"\r" not in said and b"it/s" not in said
        assert [line.split(b":")[0] for line in said.splitlines() if line.startswith(b"epoch ")] == [
            b"epoch 1",
            b"epoch 2",
            b"epoch 3",
        ]

    def test_padding_stays_zero(self, straight: Command) -> None:
        assert not load_state(straight.folder / "checkpoints" / "last.ckpt")["model.item_embedding.weight"][0].any()

    def test_it_recommends_as_it_was_tested(self, straight: Command, tiny_path: Path) -> None:
        assert_recommends_as_it_was_tested(straight.folder, tiny_path)

    def test_killed_at_random_moments(self, straight: Command, tiny_path: Path, tmp_path: Path) -> None:
        command = Command(self.family, tiny_path, tmp_path / "runs", self.flags)
        assert kill_at_random_moments(command, np.random.default_rng(0)) >= 1
        assert_same_run(straight.folder, command.folder)

    def test_killed_around_any_write(self, straight: Command, tiny_path: Path, tmp_path: Path) -> None:
        command = Command(self.family, tiny_path, tmp_path / "runs", self.flags)
        assert kill_around_any_write(command, np.random.default_rng(1)) >= 1
        assert_same_run(straight.folder, command.folder)
        lose_the_results(command)
        assert_same_run(straight.folder, command.folder)

    def test_gradients_are_clipped_under_mixed_precision(self, tiny_path: Path, tmp_path: Path) -> None:
        command = Command(self.family, tiny_path, tmp_path / "runs", self.flags)
        command.run("--precision", "bf16-mixed", "--gradient_clip_val", "1", "--num_epochs", "1")
        assert command.metrics()["epochs"] == 1

    def test_two_processes_have_the_losses_and_the_gradients_of_one(self, tmp_path: Path) -> None:
        assert_two_are_one(id_steps, self.family, folder=tmp_path)

    def test_a_single_user_is_evaluated(self, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "lone", [[1, 2, 3, 4, 5, 6]], 6)
        command = Command(self.family, data, tmp_path / "runs", (*self.flags, "--num_epochs", "1"))
        command.run()
        assert command.metrics()["test"]["users"] == 1

    def test_several_processes_learn_what_one_does(self, tmp_path: Path) -> None:
        # DeepSpeed leaves weights of fewer than 100,000 numbers whole, and others in pieces outside a forward pass.
        histories = np.random.default_rng(0).integers(1, 7001, size=(60, 6)).tolist()
        data = write_dataset(tmp_path / "wide", histories, 7000)
        # The last batch of an epoch has one history, so that one of two processes has none.
        fixed = (
            "--num_epochs",
            "2",
            "--loss",
            "gbce",
            "--num_negatives",
            "7",
            "--dropout_rate",
            "0",
            "--batch_size",
            "59",
        )
        commands = {"auto": Command(self.family, data, tmp_path / "one", (*self.flags, *fixed))}
        commands["auto"].run()
        for strategy in ("ddp", "deepspeed_stage_3"):
            flags = (*self.flags, *fixed, "--strategy", strategy)
            command = Command(self.family, data, tmp_path / strategy, (*flags, "--devices", "2"))
            command.runs.mkdir()
            script, *given = command.arguments()
            forked.run_pair(forked.run_as_main, str(forked.ROOT / script), given, folder=command.runs)
            commands[strategy] = command
        curves = [pl.read_csv(command.folder / "logs/metrics.csv")["train/loss"] for command in commands.values()]
        states = [load_state(command.folder / "checkpoints/last.ckpt") for command in commands.values()]
        for curve, state in zip(curves[1:], states[1:], strict=True):
            assert curve.to_list() == pytest.approx(curves[0].to_list(), rel=1e-4)
            for name in states[0]:
                torch.testing.assert_close(state[name], states[0][name], rtol=0, atol=2e-3, msg=name)

    def test_candidates_do_not_touch_the_training(self, tiny_path: Path, tmp_path: Path) -> None:
        # Two epochs each, so that the choice of the best epoch, which the candidates may change, changes nothing.
        states = []
        for size in ("-1", "20"):
            flags = (*self.flags, "--num_epochs", "2", "--sample_size", size)
            command = Command(self.family, tiny_path, tmp_path / size, flags)
            command.run()
            states.append(load_state(command.folder / "checkpoints" / "last.ckpt"))
            assert command.metrics()["protocol"]["sample_size"] == int(size)
        assert_same_tensors(states[0], states[1])
