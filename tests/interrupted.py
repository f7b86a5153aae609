"""Runs of a family that are killed and continued, to be compared with one that was not.

A family's test calls these with flags under which the tiny dataset's run stops early after a few seconds.
"""

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tests import forked


@dataclass(frozen=True, slots=True)
class Command:
    """A family's finetune.py on one dataset, into one folder of runs."""

    family: str
    data: Path
    runs: Path
    flags: tuple[str, ...]
    init_type: str = "none"
    script: str = "finetune.py"
    """In the family's folder."""
    result: str = "metrics.json"
    """File of a finished run."""

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.runs / self.family / self.data.name / f"{self.init_type}-seed42"

    @property
    def output(self) -> Path:
        """What the runs said."""
        return self.runs / "said"

    def arguments(self) -> tuple[str, ...]:
        """Return the script and its flags."""
        where = ("--data_path", str(self.data), "--runs_dir", str(self.runs), "--accelerator", "cpu")
        return (f"{self.family}/{self.script}", *where, "--no-progress_bar", *self.flags)

    def metrics(self) -> dict[str, Any]:
        """Return what the finished run measured."""
        found: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        return found

    def run(self, *flags: str) -> None:
        """Run it to its end."""
        self.runs.mkdir(parents=True, exist_ok=True)
        forked.run_script(*self.arguments(), *flags, output=self.output)


def assert_same_tensors(left: Any, right: Any, where: str = "") -> None:
    """Compare nested dictionaries and lists of tensors and plain values, bit by bit."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same_tensors(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_same_tensors(*pair, f"{where}/{i}")
    elif isinstance(left, Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


def without_time(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint holds of the training's state, less how long it took and where it lies."""
    kept = {key: checkpoint[key] for key in ("state_dict", "epoch", "global_step")}
    kept["optimizers"] = checkpoint.get("optimizer_states")
    for name, state in checkpoint.get("callbacks", {}).items():
        if "EarlyStopping" in name:
            kept["stopping"] = state
        elif "RunRecord" in name:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in state["history"]]
            kept["record"] = {"best": state["best"], "best_epoch": state["best_epoch"], "history": rows}
        elif "ModelCheckpoint" in name:
            kept[f"score of {Path(state['best_model_path']).name}"] = state["best_model_score"]
    return kept


def assert_same_run(left: Path, right: Path) -> None:
    """Compare two run folders in everything but time."""
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(f / "checkpoints" / name, weights_only=True) for f in (left, right))
        assert_same_tensors(without_time(one), without_time(other), name)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (left, right)]
    for found in metrics:
        del found["cost"]
    assert metrics[0] == metrics[1]
    np.testing.assert_array_equal(*(np.load(folder / "ranks-test.npy") for folder in (left, right)))
    curves = [pl.read_csv(folder / "logs" / "metrics.csv").drop("seconds") for folder in (left, right)]
    assert curves[0].equals(curves[1])


def epochs_done(folder: Path) -> int:
    curve = folder / "logs" / "metrics.csv"
    return len(curve.read_text().splitlines()) - 1 if curve.is_file() else 0


def kill_at_random_moments(command: Command, generator: np.random.Generator) -> int:
    """Stop a run four times, each some epochs and a moment after it was continued, finish it, and return the kills.

    Half of the times it is told to end and may do so in order, and each time it goes on in another place.
    """
    command.runs.mkdir(parents=True, exist_ok=True)
    kills = 0
    for turn in range(4):
        moved = replace(command, runs=command.runs.with_name(f"{command.runs.name}-{turn}"))
        command.runs.rename(moved.runs)
        wait_for = epochs_done(moved.folder) + int(generator.integers(0, 4))
        process = forked.start_script(*moved.arguments(), "--resume", output=moved.output)
        while process.is_alive() and epochs_done(moved.folder) < wait_for:
            time.sleep(0.002)
        time.sleep(float(generator.random()) * 0.1)
        if turn % 2:
            process.terminate()
            process.join()
            # Until it has read its flags, a signal ends it without a word.
            assert process.exitcode in (128 + signal.SIGTERM, -signal.SIGTERM, 0), moved.output.read_text()
            kills += process.exitcode != 0
            assert not list(moved.runs.rglob(f".*.{process.pid}.tmp"))
        else:
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        moved.runs.rename(command.runs)
    command.run("--resume")
    assert not list(command.runs.rglob(".*.tmp"))
    return kills


def die_at_rename(script: str, flags: list[str], fatal: int) -> None:
    """Run a script that is killed just before or after it gives a file its final name for the n-th time."""
    rename, count = Path.replace, 0

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == fatal // 2 and fatal % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        renamed = rename(self, target)
        if count == fatal // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return renamed

    Path.replace = replace_or_die  # type: ignore[method-assign,assignment]
    forked.run_as_main(script, flags)


def lose_the_results(command: Command) -> None:
    """Leave a finished run as a kill right after its last epoch would have, and finish it again."""
    for name in ("metrics.json", "ranks-test.npy"):
        (command.folder / name).unlink()
    command.run("--resume")


def kill_around_any_write(command: Command, generator: np.random.Generator) -> int:
    """Kill a run before or after the writing of a file, again and again until it ends, and return the kills."""
    command.runs.mkdir(parents=True, exist_ok=True)
    script, *flags = (*command.arguments(), "--resume")
    for kills in range(100):
        fatal = int(generator.integers(2, 26))
        process = forked.start(die_at_rename, str(forked.ROOT / script), flags, fatal, output=command.output)
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL, command.output.read_text()
    raise AssertionError("the run makes no headway")
