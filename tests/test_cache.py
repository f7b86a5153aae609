"""Arrays made once, in parts."""

from pathlib import Path

import numpy as np
import pytest

from seqrec.cache import Arrays, cached_arrays


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


def test_parts_are_joined_and_mapped(tmp_path: Path) -> None:
    arrays = cached_arrays(tmp_path, {"a": 1}, 3, Maker(), "making")
    assert arrays["flat"].tolist() == [0, 10, 11, 20, 21, 22]
    assert arrays["rows"].dtype == np.int8
    assert arrays["rows"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert all(isinstance(array, np.memmap) for array in arrays.values())


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    cached_arrays(tmp_path, {"a": 1}, 3, Maker(), "making")
    again, other = Maker(), Maker()
    cached_arrays(tmp_path, {"a": 1}, 3, again, "making")
    cached_arrays(tmp_path, {"a": 2}, 3, other, "making")
    assert (again.made, other.made) == ([], [0, 1, 2])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kill_costs_the_part_that_was_being_made(tmp_path: Path) -> None:
    first, second = Maker(fails_at=2), Maker()
    with pytest.raises(KeyboardInterrupt):
        cached_arrays(tmp_path, {"a": 1}, 4, first, "making")
    arrays = cached_arrays(tmp_path, {"a": 1}, 4, second, "making")
    assert (first.made, second.made) == ([0, 1], [2, 3])
    assert arrays["flat"].tolist() == [0, 10, 11, 20, 21, 22, 30, 31, 32, 33]
