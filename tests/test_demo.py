"""The made-up shop: its sizes, that text tells what belongs together, and that it is the same for a seed."""

from pathlib import Path

import numpy as np
import pytest

from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.demo import FIRST, SECOND, Demo, make_catalogue
from seqrec.data.splits import leave_one_out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(Demo(data_dir=tmp_path_factory.mktemp("data")))


def test_sizes(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.num_users == 1500
    assert 740 <= dataset.num_items <= 800
    lengths = np.diff(dataset.offsets)
    assert 7.5 <= lengths.mean() <= 8.5
    assert lengths.min() >= 3
    assert dataset.timestamps is not None
    assert dataset.attributes == ("title", "brand", "category")
    assert dataset.item_table()["title"].n_unique() == dataset.num_items


def test_popularity_is_skewed_and_some_items_are_cold(folder: Path) -> None:
    dataset = load_dataset(folder)
    counts = leave_one_out(dataset).train.item_counts(dataset.num_items)[1:]
    top = np.sort(counts)[::-1][: len(counts) // 5].sum()
    assert top / counts.sum() > 0.45
    assert (counts == 0).any()
    assert (counts <= 5).mean() > 0.2


def test_series_names_tell_what_follows(folder: Path) -> None:
    dataset = load_dataset(folder)
    words = [set(title.split()) & {*FIRST, *SECOND} for title in dataset.item_table()["title"]]
    same = np.array([words[a - 1] == words[b - 1] for a, b in zip(dataset.items[:-1], dataset.items[1:], strict=True)])
    inside = np.ones(len(dataset.items) - 1, dtype=bool)
    inside[dataset.offsets[1:-1] - 1] = False
    assert same[inside].mean() > 0.45  # the share that goes on within a series
    assert same[~inside].mean() < 0.05  # from one user to another


def test_late_items_are_never_bought_before_their_launch(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.timestamps is not None
    late = np.array([False, *dataset.item_table()["title"].str.contains("mark II")])
    launch = 1_577_836_800 + int(0.9 * 2 * 365 * 86_400)
    assert late.any()
    assert dataset.timestamps[late[dataset.items]].min() >= launch


@pytest.mark.parametrize("num_items", [100, 101, 777, 30_000])
def test_any_size_of_catalogue(num_items: int) -> None:
    shop = make_catalogue(num_items, 0.6, np.random.default_rng(0))
    assert len(shop.items) == len(shop.series) == num_items
    assert shop.items["raw_id"].n_unique() == num_items
    assert shop.items["title"].null_count() == 0
    assert (shop.ends > shop.starts).all()
    assert shop.ends[-1] == num_items


def test_another_seed_gives_another_shop(folder: Path, tmp_path: Path) -> None:
    small = {"num_users": 50, "num_items": 100, "data_dir": tmp_path}
    hashes = {load_dataset(prepare(Demo(name=f"d{s}", seed=s, **small))).sequences_sha256 for s in (1, 2)}  # type: ignore[arg-type]
    assert len(hashes) == 2


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="--num_items >= 100, got 1500 and 10"):
        Demo(num_items=10)
    with pytest.raises(ValueError, match="at most 1 together"):
        Demo(chain=0.9, noise=0.2)
