"""The memory benchmark on sizes at which a positions x items matrix would show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.memory import Common, EventsMemory, measure_events, peaks_of

ROOT = Path(__file__).resolve().parents[1]
MIB = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}


def sizes(*flags: str) -> list[float]:
    """Return the sizes that the benchmark prints, in MiB."""
    # A shell in between: what this process has held at the most would count as its child's.
    command = [
        "bash",
        "-c",
        '"$@"; exit $?',
        "bash",
        sys.executable,
        str(ROOT / "scripts/benchmarks/memory.py"),
        *flags,
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(number) * MIB[unit] for number, unit in re.findall(r"([\d.]+) ([KMG]iB)", said)]


def test_a_step_holds_no_matrix_of_positions_and_items() -> None:
    most, kept, _, step = sizes("softmax", "--num_items", "60000", "--positions", "4096", "--width", "8")
    assert kept == pytest.approx(60_001 * 8 * 4 * 3 / 2**20, rel=0.1)
    assert step < 60_000 * 4096 * 4 / 2**20 / 4 < most  # a quarter of the matrix


def test_ranking_holds_no_matrix_of_users_and_items() -> None:
    flags = ("--num_items", "60000", "--measured_users", "4096", "--batch_size", "2048", "--width", "8")
    first, last, held, other = sizes("ranking", *flags)
    assert held == pytest.approx(60_001 * 8 * 4 / 2**20, rel=0.1)
    assert last - first < 60_000 * 2048 * 4 / 2**20 / 8
    assert last - other < 60_000 * 2048 * 4 / 2**20 / 2


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="--num_items must be at least 1, got 0"):
        Common(num_items=0)


def test_blocks_that_run_one_by_one_are_not_in_memory_together() -> None:
    resident = []
    for gigabytes in ("0.05", "0.4"):
        flags = ("--gigabytes", gigabytes, "--limit_gigabytes", "30", "--width", "512", "--num_items", "20")
        resident.append(sizes("blocks", *flags)[-1])
    assert resident[1] - resident[0] < 100  # MiB, of 350 more


def test_events_are_prepared_from_parts(tmp_path: Path) -> None:
    config = EventsMemory(num_events=4000, num_items=50, parts=3, folder=tmp_path)
    said = measure_events(config)
    assert re.match(r"4,000 events of 100 users and \d+ items prepared in", said)
    assert not list(tmp_path.iterdir())


def test_the_peaks_of_all_processes_of_a_command_are_read() -> None:
    child = "x = bytearray(b'1') * ({} << 20); import time; time.sleep(0.5)"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child.format(200)!r}]); {child.format(20)}"
    )
    few, many = peaks_of([sys.executable, "-c", parent])
    assert 20 << 20 < few < 150 << 20
    assert 200 << 20 < many < 350 << 20
    with pytest.raises(ChildProcessError, match="ended with 3"):
        peaks_of([sys.executable, "-c", "raise SystemExit(3)"])
