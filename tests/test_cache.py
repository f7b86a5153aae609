"""Arrays made once, in parts."""

import time
from pathlib import Path

import numpy as np
import pytest

from seqrec.basics.cache import Arrays, CachedArrays
from tests import forked


class Maker:
    """Makes part p of two arrays and remembers that it did."""

    def __init__(self, fails_at: int = -1) -> None:
        self.made: list[int] = []
        self.fails_at = fails_at

    def __call__(self, part: int) -> Arrays:
        if part == self.fails_at:
            raise KeyboardInterrupt
        self.made.append(part)
        return {"flat": np.arange(part * 10, part * 10 + part + 1), "rows": np.full((2, 3), part, dtype=np.int8)}


def cached_arrays(root: Path, key: dict[str, int], num_parts: int, maker: Maker) -> Arrays:
    return CachedArrays(root, key, num_parts).load(maker, "making")


def test_several_processes_share_the_parts_out(tmp_path: Path) -> None:
    for first in (1, 0):
        maker = Maker()
        cache = CachedArrays(tmp_path, {"a": 1}, 5)
        cache.make(maker, "making", first, 2)
        assert maker.made == list(range(first, 5, 2))
    arrays = cache.join()
    assert arrays["flat"].tolist() == [p * 10 + i for p in range(5) for i in range(p + 1)]
    cache.remove()
    assert not list(tmp_path.iterdir())


def test_parts_are_joined_and_mapped(tmp_path: Path) -> None:
    arrays = cached_arrays(tmp_path, {"a": 1}, 3, Maker())
    assert arrays["flat"].tolist() == [0, 10, 11, 20, 21, 22]
    assert arrays["rows"].dtype == np.int8
    assert arrays["rows"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert all(isinstance(array, np.memmap) for array in arrays.values())


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    cached_arrays(tmp_path, {"a": 1}, 3, Maker())
    again, other = Maker(), Maker()
    cached_arrays(tmp_path, {"a": 1}, 3, again)
    cached_arrays(tmp_path, {"a": 2}, 3, other)
    assert (again.made, other.made) == ([], [0, 1, 2])
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_kill_costs_the_part_that_was_being_made(tmp_path: Path) -> None:
    first, second = Maker(fails_at=2), Maker()
    with pytest.raises(KeyboardInterrupt):
        cached_arrays(tmp_path, {"a": 1}, 4, first)
    arrays = cached_arrays(tmp_path, {"a": 1}, 4, second)
    assert (first.made, second.made) == ([0, 1], [2, 3])
    assert arrays["flat"].tolist() == [0, 10, 11, 20, 21, 22, 30, 31, 32, 33]


def load_slowly(root: Path, name: str) -> None:
    """Load a cache of slow parts, and write down which of them this process made."""
    maker = Maker()

    def slow(part: int) -> Arrays:
        time.sleep(0.05)
        return maker(part)

    arrays = CachedArrays(root, {"a": 1}, 4).load(slow, "making")
    (root / f"{name}.txt").write_text(f"{maker.made} {arrays['flat'].tolist()}")


def test_a_process_that_comes_meanwhile_waits(tmp_path: Path) -> None:
    processes = [forked.start(load_slowly, tmp_path, name) for name in ("one", "other")]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    flat = [0, 10, 11, 20, 21, 22, 30, 31, 32, 33]
    said = sorted((tmp_path / f"{name}.txt").read_text() for name in ("one", "other"))
    assert said == [f"[0, 1, 2, 3] {flat}", f"[] {flat}"]
