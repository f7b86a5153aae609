"""Which items a prediction's history has, against plain loops."""

from collections.abc import Iterable

import numpy as np
import pytest

from seqrec.nn.repeats import Had, had_by_asked, had_by_event, had_by_history
from tests.histories import as_histories

LISTS = [[3, 1, 3, 3], [2], [5, 5], [1, 2, 3, 2, 1], [4, 6, 5, 4, 4, 6]]
LENGTHS = np.array([len(items) for items in LISTS])
ITEMS = np.concatenate(LISTS)


def pairs(had: Had) -> list[tuple[int, int]]:
    """Return the pairs, of which each row's items are sorted; rows are to come in order, and no pair twice."""
    rows, items = had.rows.tolist(), had.items.tolist()
    assert rows == sorted(rows)
    found = sorted(zip(rows, items, strict=True))
    assert len(set(found)) == len(found)
    return found


def every(sets: Iterable[set[int]]) -> list[tuple[int, int]]:
    return [(row, item) for row, items in enumerate(sets) for item in sorted(items)]


@pytest.mark.parametrize("most", [1, 2, 9])
def test_a_history_has_its_latest_items(most: int) -> None:
    rows = np.array([4, 0, 3])
    had = had_by_history(as_histories(LISTS), rows, most)
    assert pairs(had) == every(set(LISTS[row][-most:]) for row in rows)


def test_an_event_has_the_items_up_to_it() -> None:
    expected = (set(items[: end + 1]) for items in LISTS for end in range(len(items)))
    assert pairs(had_by_event(ITEMS, LENGTHS)) == every(expected)


@pytest.mark.parametrize("rows", [[0, 3, 4, 17], [], [11]])
def test_some_predictions_count_from_0(rows: list[int]) -> None:
    had = had_by_event(ITEMS, LENGTHS)
    kept = [[item for row, item in pairs(had) if row == asked] for asked in rows]
    assert pairs(had.of(np.array(rows, dtype=np.int64))) == every(map(set, kept))


def test_an_asked_event_has_those_that_are_not_asked() -> None:
    asked = np.array([0, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=bool)
    expected, start = [], 0
    for items in LISTS:
        own = asked[start : start + len(items)]
        start += len(items)
        known = {item for item, hidden in zip(items, own, strict=True) if not hidden}
        expected += [known] * int(own.sum())
    assert pairs(had_by_asked(ITEMS, LENGTHS, asked)) == every(expected)
