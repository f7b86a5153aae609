"""Dataset views: both splits by hand, gathering against a loop, and folders that contradict themselves."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seqrec.data.dataset import Dataset, Histories, find_dataset, load_dataset
from seqrec.data.dataset_files import hash_item_ids
from seqrec.data.splits import global_time_split, leave_one_out
from tests.conftest import write_dataset

HISTORIES = [[1, 2, 3, 4], [2, 5], [6], [3, 3, 1]]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(write_dataset(tmp_path / "shop", HISTORIES, 6))


def contents(view: Histories) -> dict[int, list[int]]:
    return {int(u): view.items[a:b].tolist() for u, a, b in zip(view.users, view.starts, view.ends, strict=True)}


def test_leave_one_out_by_hand(dataset: Dataset) -> None:
    split = leave_one_out(dataset)
    assert contents(split.train) == {0: [1, 2], 1: [2, 5], 2: [6], 3: [3]}  # users 1 and 2 are shorter than 3
    assert contents(split.valid) == {0: [1, 2], 3: [3]}
    assert split.valid.targets.tolist() == [3, 3]
    assert contents(split.test) == {0: [1, 2, 3], 3: [3, 3]}
    assert split.test.targets.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("last", "begin", "end", "train", "valid", "test"),
    [
        (4, 0, None, [1, 2, 3, 4, 5, 6], 7, 9),  # the 4th from the end, and the 2nd
        (2, 0, 8, [1, 2, 3, 4, 5, 6], 7, 8),  # the end is exclusive
        (2, -6, -2, [5, 6], 7, 8),
        (2, 3, 0, [4, 5, 6, 7, 8], 9, 10),  # 0 stands for no end
        (3, -99, 99, [1, 2, 3, 4, 5, 6, 7], 8, 10),
    ],
)
def test_a_window_of_events_is_used_and_its_last_ones_held_out(
    tmp_path: Path, last: int, begin: int, end: int | None, train: list[int], valid: int, test: int
) -> None:
    events = list(range(1, 11))
    used = events[begin : end or None]
    assert (used[: len(used) - last], used[-last], used[-(last // 2)]) == (train, valid, test)
    shop = load_dataset(write_dataset(tmp_path / "shop", [events, [5, 6], [7]], 10))
    split = leave_one_out(shop, last, begin, end)
    assert contents(split.train)[0] == train
    assert contents(split.valid) == {0: train}
    assert contents(split.test) == {0: used[: used.index(test)]}
    assert (split.valid.targets.tolist(), split.test.targets.tolist()) == ([valid], [test])


def test_global_time_split_by_hand(tmp_path: Path) -> None:
    # Ten moments 0..9. T2 is the 0.75 quantile, the higher of its neighbours: of 10 sorted values the one at 6.75 -> 7.
    # T1 is that quantile of the 7 moments before: at 4.5 -> 5. Train < 5 <= validation < 7 <= test.
    histories = [[1, 2, 3, 4], [5, 6, 7], [1, 3], [2]]
    times = [[0, 4, 6, 9], [1, 5, 7], [2, 3], [8]]
    path = write_dataset(tmp_path / "shop", histories, 7, times)
    split = global_time_split(load_dataset(path), quantile=0.75)
    assert contents(split.train) == {0: [1, 2], 1: [5], 2: [1, 3]}
    assert contents(split.valid) == {0: [1, 2], 1: [5]}
    assert split.valid.targets.tolist() == [3, 6]
    assert contents(split.test) == {0: [1, 2, 3], 1: [5, 6]}  # user 3 has nothing before her target
    assert split.test.targets.tolist() == [4, 7]


def test_other_targets_of_a_time_split(tmp_path: Path) -> None:
    # T2 is 7, the median of ten moments: user 0 has three events from there on, user 1 has nothing before her two.
    histories, times = [[1, 2, 3, 4, 5], [6, 7]], [[0, 4, 7, 8, 9], [8, 9]]
    dataset = load_dataset(write_dataset(tmp_path / "shop", [*histories, [1, 2, 3]], 7, [*times, [1, 2, 5]]))
    first = global_time_split(dataset, 0.5, "first").test
    assert contents(first) == {0: [1, 2], 1: [6]}
    assert first.targets.tolist() == [3, 7]
    last = global_time_split(dataset, 0.5, "last").test
    assert contents(last) == {0: [1, 2, 3, 4], 1: [6]}
    drawn = [global_time_split(dataset, 0.5, "random", seed).test for seed in range(40)]
    assert {tuple(contents(test)[0]) for test in drawn} == {(1, 2), (1, 2, 3), (1, 2, 3, 4)}
    assert all(contents(test)[1] == [6] for test in drawn)
    successive = global_time_split(dataset, 0.5, "successive").test
    assert successive.users.tolist() == [0, 0, 0, 1]
    assert [successive.gather(np.array([row]), 9)[0].tolist() for row in range(4)] == [
        *([1, 2], [1, 2, 3], [1, 2, 3, 4]),
        [6],
    ]
    assert successive.targets.tolist() == [3, 4, 5, 7]


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=3, max_size=12),
    st.floats(0.5, 0.95),
    st.sampled_from(["last", "first", "random", "successive"]),
)
def test_nothing_is_learned_from_after_a_test_event(times: list[list[int]], quantile: float, target: Any) -> None:
    times = [sorted(row) for row in times]
    dataset = lists_as_dataset([[1] * len(row) for row in times], times)
    assert dataset.timestamps is not None
    assume(np.quantile(dataset.timestamps, quantile, method="higher") > dataset.timestamps.min())
    split = global_time_split(dataset, quantile, target)
    trained = [dataset.timestamps[a:b] for a, b in zip(split.train.starts, split.train.ends, strict=True)]
    latest = max((part.max() for part in trained), default=-1)
    for view in (split.valid, split.test):
        assert (dataset.timestamps[view.ends] > latest).all()
        assert (view.lengths > 0).all()
    if len(split.valid) and len(split.test):
        assert dataset.timestamps[split.valid.ends].max() < dataset.timestamps[split.test.ends].min()


def lists_as_dataset(histories: list[list[int]], times: list[list[int]] | None = None) -> Dataset:
    return Dataset(
        path=Path("nowhere"),
        name="lists",
        num_users=len(histories),
        num_items=50,
        offsets=np.cumsum([0, *map(len, histories)]),
        items=np.array(list(chain.from_iterable(histories)), dtype=np.int32),
        timestamps=None if times is None else np.array(list(chain.from_iterable(times))),
        attributes=(),
        item_ids_sha256="",
        sequences_sha256="",
        manifest={},
    )


@given(st.lists(st.lists(st.integers(1, 50), max_size=9), min_size=1, max_size=8), st.integers(1, 6), st.data())
def test_gather_equals_a_loop(histories: list[list[int]], max_length: int, data: st.DataObject) -> None:
    dataset = lists_as_dataset(histories)
    view = Histories(dataset.items, np.arange(len(histories)), dataset.offsets[:-1], dataset.offsets[1:])
    rows = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=10))
    items, offsets = view.gather(np.array(rows, dtype=np.int64), max_length)
    recent = [histories[row][-max_length:] for row in rows]
    assert items.dtype == np.int64
    assert items.tolist() == list(chain.from_iterable(recent))
    assert np.diff(offsets).tolist() == [len(history) for history in recent]
    counts = view.item_counts(50)
    assert counts.tolist() == [sum(history.count(item) for history in histories) for item in range(51)]


def test_select_keeps_the_order_given(dataset: Dataset) -> None:
    view = leave_one_out(dataset).train.select(np.array([3, 0]))
    assert view.users.tolist() == [3, 0]
    assert len(view) == 2


def test_item_table_and_manifest(dataset: Dataset) -> None:
    table = dataset.item_table()
    assert table.columns == ["item", "raw_id", "title"]
    assert table["item"].to_list() == [1, 2, 3, 4, 5, 6]
    assert dataset.item_ids_sha256 == hash_item_ids(table["raw_id"].to_list())
    assert dataset.timestamps is None


def test_a_time_split_needs_moments(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no timestamps, only order.*use --split leave_one_out"):
        global_time_split(dataset)
    timed = load_dataset(write_dataset(tmp_path / "timed", [[1, 2], [1]], 2, [[5, 5], [5]]))
    with pytest.raises(ValueError, match=r"inside \(0, 1\), got 1"):
        global_time_split(timed, 1)
    with pytest.raises(ValueError, match=r"the very first moment.*use --split leave_one_out"):
        global_time_split(timed)


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest.json does not exist.*prepare.py demo --name nothing"):
        load_dataset(tmp_path / "nothing")


def test_find_dataset(dataset: Dataset) -> None:
    parent = dataset.path.parent
    assert find_dataset("shop", None, data_dir=parent).num_items == 6
    assert find_dataset(None, dataset.path).name == "shop"
    with pytest.raises(FileNotFoundError, match=r"has \['shop'\].*prepare.py SOURCE --input ... --name shoe"):
        find_dataset("shoe", None, data_dir=parent)
    with pytest.raises(ValueError, match=r"one of --dataset NAME .* and --data_path FOLDER"):
        find_dataset("shop", dataset.path)
    with pytest.raises(FileNotFoundError, match="--name demo"):  # what is meant without either
        find_dataset(None, None, data_dir=parent)
