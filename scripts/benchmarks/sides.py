"""How two sides are measured beside one another: processes, environments, ratios, tables."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from seqrec.basics.errors import MissingFileError
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import Histories


@dataclass(frozen=True, slots=True)
class SideTimes:
    """Seconds that the two sides took for the same thing, each at least once."""

    name: str
    ours: Sequence[float]
    peer: Sequence[float]
    count: int | None = None
    """What was worked through in that time, if that makes a rate; its unit ends the name."""

    @property
    def ratio(self) -> tuple[float, float, float]:
        """How many times as long the peer takes: of the medians, the smallest and the largest of any pair."""
        middle = median(self.peer) / median(self.ours)
        return middle, min(self.peer) / max(self.ours), max(self.peer) / min(self.ours)

    def line(self) -> str:
        """Return the table's row."""
        middle, low, high = self.ratio
        ours, peer = (self._figure(median(side)) for side in (self.ours, self.peer))
        return f"{self.name:<34}{ours:>12}{peer:>12}{middle:>9.1f} [{low:.1f}, {high:.1f}]"

    def _figure(self, seconds: float) -> str:
        return f"{seconds:.3g} s" if self.count is None else f"{self.count / seconds:.4g}/s"


def launch(
    command: Sequence[str | Path], environment: dict[str, str], on_line: Callable[[str], object]
) -> dict[str, Any]:
    """Run a side as a process of its own and return what it prints last, if that is JSON.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        on_line: Called with each line it prints.

    Raises:
        ChildProcessError: If it fails; the message ends with its last lines.
    """
    lines: list[str] = []
    with subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(line)
    if process.returncode:
        tail = "\n".join(lines[-20:])
        raise ChildProcessError(f"{' '.join(map(str, command))} ended with status {process.returncode}:\n{tail}")
    return dict(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


def take_turns(what: str, repeats: int, **sides: Callable[[], None]) -> dict[str, list[float]]:
    """Return the seconds of each side's turns, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats + 1):
        for side, work in sides.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[side].append(time.perf_counter() - start)
                print(f"turn of {what}, {side}: {seconds[side][-1]:.2f} s", flush=True)
    return seconds


def tuned_environment(threads: int) -> dict[str, str]:
    """Return this process's environment with what scripts/env.sh sets for every launcher."""
    command = ["bash", "-c", 'source "$0" && env -0', str(ROOT / "scripts" / "env.sh")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=plain_environment(threads)).stdout
    return dict(pair.split("=", 1) for pair in output.split("\0") if "=" in pair)


def plain_environment(threads: int) -> dict[str, str]:
    """Return this process's environment without a tuned allocator."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return environment | {"OMP_NUM_THREADS": str(threads)}


def find_peer(name: str) -> Path:
    """Return the Python of a peer's environment.

    Raises:
        MissingFileError: If it has not been made.
    """
    python = ROOT / ".venv-peers" / name / "bin" / "python"
    if not python.exists():
        raise MissingFileError(f"{python} does not exist: make it with `bash scripts/benchmarks/setup_peer.sh {name}`")
    return python


def flatten(histories: Histories) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return (E,) users and (E,) items of some histories, in order."""
    rows = np.arange(len(histories))
    items, offsets = histories.gather(rows, int(histories.lengths.max()))
    return np.repeat(histories.users, np.diff(offsets)), items


def print_table(peer: str, comparisons: Sequence[SideTimes]) -> None:
    """Print one line per comparison."""
    print(f"{'':<34}{'ours':>12}{peer:>12}{'ratio':>9} [min, max]")
    for comparison in comparisons:
        print(comparison.line())


def summarise(comparisons: Sequence[SideTimes]) -> list[dict[str, Any]]:
    """Return the comparisons with their ratios, as JSON holds them."""
    return [asdict(c) | {"ratio": dict(zip(("median", "min", "max"), c.ratio, strict=True))} for c in comparisons]


def processor() -> str:
    """Return the processor's name and its number of cores."""
    names = [part for part in _cpuinfo() if part.startswith("model name")]
    return f"{names[0].split(':')[1].strip() if names else platform.machine()}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
