"""Processes forked from one that has imported torch and Lightning already, so that a run starts in milliseconds.

The server knows third parties only: a forked process imports the project itself, from wherever it is told to. This
module therefore imports nothing of the project.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

ROOT = Path(__file__).resolve().parents[1]
BFLOAT16_QUESTIONS = (
    (torch.cpu, "_is_amx_tile_supported"),
    (torch.cpu, "_is_avx512_bf16_supported"),
    (torch.cuda, "is_bf16_supported"),
)
"""What code asks to learn whether a machine has bfloat16."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytorch_lightning", "tensorboard", "polars", "tyro", "hypothesis", "pytest"])


def pretend_bfloat16(answer: str | None) -> None:
    """Let torch say that this machine multiplies bfloat16 in hardware ("yes"), that it does not ("no"), or the truth.

    Raises:
        ValueError: If the answer is another one.
    """
    if answer not in ("yes", "no", None):
        raise ValueError(f"SEQREC_TEST_BF16 must be yes or no, got {answer!r}")
    if answer is not None:
        for module, name in BFLOAT16_QUESTIONS:
            setattr(module, name, lambda *args, **kwargs: answer == "yes")


def start(target: Callable[..., object], *args: Any, output: Path | None = None) -> ForkServerProcess:
    """Start a process that calls a function of a module, its output going to a file."""
    process = _context.Process(target=_redirected, args=(target, args, output), daemon=True)
    process.start()
    return process


def start_script(script: str, *flags: str | Path, output: Path | None = None) -> ForkServerProcess:
    """Start `python <script> <flags>` for a script of the project."""
    return start(run_as_main, str(ROOT / script), list(map(str, flags)), output=output)


def run_script(script: str, *flags: str | Path, output: Path | None = None) -> None:
    """Run a script of the project to its end.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    process = start_script(script, *flags, output=output)
    process.join()
    if process.exitcode:
        said = output.read_text() if output is not None else ""
        raise RuntimeError(f"{script} {' '.join(map(str, flags))} ended with {process.exitcode}: {said[-3000:]}")


def start_pair(target: Callable[..., object], *args: Any, folder: Path) -> list[ForkServerProcess]:
    """Start two processes that train together, as a launcher would; their output goes to `said.RANK` in a folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [start(_as_one_of_two, rank, port, target, args, output=folder / f"said.{rank}") for rank in range(2)]


def run_pair(target: Callable[..., object], *args: Any, folder: Path) -> None:
    """Run two processes that train together to their end.

    Raises:
        RuntimeError: If one fails, with what it said.
    """
    processes = start_pair(target, *args, folder=folder)
    for rank, process in enumerate(processes):
        process.join(180)
        if process.exitcode != 0:
            said = (folder / f"said.{rank}").read_text()[-3000:]
            raise RuntimeError(f"process {rank} of two ended with {process.exitcode}: {said}")


def _as_one_of_two(rank: int, port: int, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    target(*args)


def _redirected(target: Callable[..., object], args: tuple[Any, ...], output: Path | None) -> None:
    sink = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    pretend_bfloat16(os.environ.get("SEQREC_TEST_BF16"))
    target(*args)


def run_as_main(path: str, flags: list[str]) -> None:
    """Do in this process what `python <path> <flags>` does."""
    sys.argv = [path, *flags]
    runpy.run_path(path, run_name="__main__")


def run_tests(folder: Path, runs: list[list[str]]) -> None:
    """Run pytest on a copy of the project, once for each list of arguments; the first failure ends the process."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if not Path(path).is_relative_to(ROOT) or "site-" in path)]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    for arguments in runs:
        status = pytest.main(["-p", "no:cacheprovider", "-W", "ignore", *arguments])
        if status:
            sys.exit(int(status))
