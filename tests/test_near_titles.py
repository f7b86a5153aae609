"""Near titles against a plain comparison of all pairs."""

import re

import numpy as np
import polars as pl
import pytest

from seqrec.data.near_titles import find_near_titles


def plainly(titles: list[str], others: list[str], least: float) -> list[tuple[int, int]]:
    found = []
    for row, title in enumerate(titles):
        for place, other in enumerate(others):
            one, two = (set(re.findall(r"[a-z0-9]+", text.lower())) for text in (title, other))
            if one and two and len(one & two) >= least * len(one | two) - 1e-9:
                found.append((row, place))
    return found


@pytest.mark.parametrize("least", [0.3, 0.5, 0.8, 1.0])
def test_all_near_titles_are_found(least: float) -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(25)])

    def draw(count: int) -> list[str]:
        return [" ".join(rng.choice(words, rng.integers(0, 8))) for _ in range(count)]

    titles, others = draw(150), draw(120)
    found = find_near_titles(pl.Series(titles), pl.Series(others), least)
    expected = plainly(titles, others, least)
    assert found.select("row", "other").rows() == expected and len(expected) > 5


def test_what_counts_as_a_word() -> None:
    titles = pl.Series(["Copper KETTLE, 2 l", "红色水壶", "", None])
    others = pl.Series(["2 l kettle (copper)", "红色 水壺", ""])
    found = find_near_titles(titles, others, 0.5)
    assert found.rows() == [(0, 0, 1.0), (1, 1, 0.6)]
    assert find_near_titles(titles, pl.Series([], dtype=pl.String), 0.5).is_empty()
