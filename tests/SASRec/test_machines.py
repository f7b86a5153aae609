"""Two machines, here two launchers of torchrun on one, train what one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import write_dataset
from tests.forked import ROOT
from tests.interrupted import Command


def torchrun(node: int, port: int, command: Command) -> subprocess.Popen[bytes]:
    """Start a machine's launcher, as docs/speed.md says."""
    script, *flags = command.arguments()
    launcher = ("--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(node))
    where = ("--master_addr", "127.0.0.1", "--master_port", str(port))
    arguments = [*launcher, *where, str(ROOT / script), *flags]
    with (command.runs / f"said.{node}").open("wb") as said:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *arguments], stdout=said, stderr=said, env=environment
        )


def test_two_machines_train_as_one(tmp_path: Path) -> None:
    histories = np.random.default_rng(0).integers(1, 41, size=(61, 6)).tolist()
    data = write_dataset(tmp_path / "data", histories, 40)
    flags = ("--num_epochs", "2", "--dropout_rate", "0", "--batch_size", "20")
    alone = Command("SASRec", data, tmp_path / "one", flags)
    alone.run()
    both = Command("SASRec", data, tmp_path / "two", (*flags, "--num_nodes", "2", "--strategy", "deepspeed_stage_3"))
    both.runs.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [torchrun(node, port, both) for node in range(2)]
    for node, machine in enumerate(machines):
        assert machine.wait(300) == 0, (both.runs / f"said.{node}").read_text()[-3000:]
    curves = [pl.read_csv(command.folder / "logs/metrics.csv") for command in (alone, both)]
    for name in ("train/loss", "valid/NDCG@10"):
        assert curves[1][name].to_list() == pytest.approx(curves[0][name].to_list(), rel=1e-4)
    ranks = [np.load(command.folder / "ranks-test.npy") for command in (alone, both)]
    assert np.mean(ranks[0] == ranks[1]) > 0.9  # the same but for rounding
