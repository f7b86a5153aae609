"""Comments of a dataset: four tables by hand, what belongs nowhere, damage, and the made-up ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.comments import CommentTables
from seqrec.data.sources.comments_demo import FORMATS, THINGS, CommentsDemo

VIDEOS: dict[str, list[Any]] = {"video_id": [10, 20, 30], "title": ["ten", "twenty", "thirty"], "timestamp": [5, 6, 7]}
COMMENTS: dict[str, list[Any]] = {
    "comment_id": ["a", "b", "c", "d", "e"],
    "video_id": ["20", "10", "20", "30", "10"],
    "content": ["on twenty", None, "also on twenty", "on thirty", "on ten"],
    "timestamp": [9, 30, 8, 8, 20],
    "likes": [7, 0, 0, 0, 1],
}
WATCHED: dict[str, list[Any]] = {
    "user_id": [2, 1, 1, 2, 2],
    "video_id": [10, 20, 10, 20, 10],
    "timestamp": [40, 41, 42, 43, 44],
}
ANSWERED: dict[str, list[Any]] = {
    "user_id": ["2", "1", "9", "2", "9"],
    "comment_id": ["c", "b", "a", "e", "e"],
    "timestamp": [60, 50, 51, 45, 50],
}


def write_tables(folder: Path, **changed: dict[str, list[Any]]) -> CommentTables:
    """Write the four tables, each as another kind of file, and return the source that reads them."""
    folder.mkdir(exist_ok=True)
    given = {"videos": VIDEOS, "comments": COMMENTS, "video_events": WATCHED, "comment_events": ANSWERED} | changed
    paths = {}
    for number, (name, columns) in enumerate(given.items()):
        paths[name] = folder / f"{name}{('.parquet', '.csv')[number % 2]}"
        table = pl.DataFrame(columns)
        table.write_csv(paths[name]) if number % 2 else table.write_parquet(paths[name])
    return CommentTables(name="shop", data_dir=folder / "data", **paths)  # type: ignore[arg-type]


def read(config: CommentTables | CommentsDemo) -> Comments:
    return load_comments(load_dataset(prepare(config)))


def test_four_tables_by_hand(tmp_path: Path) -> None:
    found = read(write_tables(tmp_path))
    dataset = found.dataset
    # Item 30 has no event, so it and its comment are left out; items are numbered as they first occur.
    assert dataset.item_table()["raw_id"].to_list() == ["10", "20"]
    assert found.own.item_table()["raw_id"].to_list() == ["e", "b", "c", "a"]  # by item, then by time
    assert found.own.item_table()["text"].to_list() == ["on ten", "", "also on twenty", "on twenty"]
    assert found.under.tolist() == [0, 1, 1, 2, 2]
    assert found.firsts.tolist() == [1, 1, 3, 5]
    assert found.published is not None and found.item_published is not None
    assert found.published.tolist() == [0, 20, 30, 8, 9]
    assert found.item_published.tolist() == [0, 5, 6]
    # Users 2 and 1 are the dataset's, in this order; user 9 has events with comments alone.
    assert dataset.user_table()["raw_id"].to_list() == ["2", "1"]
    assert found.own.user_table()["raw_id"].to_list() == ["2", "1", "9"]
    assert found.own.offsets.tolist() == [0, 2, 3, 5]
    assert found.own.items.tolist() == [1, 3, 2, 1, 4]
    assert found.times.tolist() == [45, 60, 50, 50, 51]


def test_tables_without_times_of_publication(tmp_path: Path) -> None:
    videos = {name: VIDEOS[name] for name in ("video_id", "title")}
    comments = {name: COMMENTS[name] for name in ("comment_id", "video_id", "content")}
    found = read(write_tables(tmp_path, videos=videos, comments=comments))
    assert found.published is None and found.item_published is None
    assert found.own.item_table()["raw_id"].to_list() == ["b", "e", "a", "c"]  # by item, then as the source has them


def test_what_filters_leave_out_is_left_out_of_the_comments(tmp_path: Path) -> None:
    found = read(replace(write_tables(tmp_path), min_uc=3))
    assert found.own.user_table()["raw_id"].to_list() == ["2", "9"]  # user 1 had an event, which was left out
    assert found.own.items.tolist() == [1, 3, 1, 4]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"comments": COMMENTS | {"video_id": ["20", "10", "70", "30", "10"]}},
            r"comments.csv, line 4: the comment belongs to video_id '70', which is not among --videos videos.parquet",
        ),
        (
            {"comment_events": ANSWERED | {"comment_id": ["c", "b", "x", "e", "y"]}},
            "2 events name .* such as 'y' of user '9'",
        ),
        ({"video_events": WATCHED | {"video_id": [10, 20, 11, 20, 10]}}, "1 videos are not among .* such as '11'"),
        ({"video_events": WATCHED | {"timestamp": [40, None, 42, 43, 44]}}, "no valid timestamp"),
        ({"comments": COMMENTS | {"comment_id": ["a", "b", "a", "d", "e"]}}, "item id 'a' occurs twice"),
        ({"comments": {"comment_id": ["a"], "content": ["x"]}}, "video_id"),
        ({"videos": {"video_id": [10, 20, 30]}}, "expected a column of text beside 'video_id'"),
    ],
)
def test_faulty_tables_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        prepare(write_tables(tmp_path, **changed))
    assert not (tmp_path / "data" / "shop").exists()


def test_a_dataset_without_comments_says_how_to_get_them(tiny: Dataset) -> None:
    with pytest.raises(MissingFileError, match=r"has no comments: prepare it with .* comments`"):
        load_comments(tiny)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = prepare(write_tables(tmp_path))
    for name in ("sequences/items", "under", "published"):
        file = folder / "comments" / f"{name}.npy"
        whole = file.read_bytes()
        for damaged, message in ((whole[:-4], f"{file.name}"), (whole[:-1] + b"\x01", "sha256|expected 1 to")):
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=message):
                load_comments(load_dataset(folder))
        file.write_bytes(whole)
    load_comments(load_dataset(folder))
    manifest = json.loads((folder / "comments" / "manifest.json").read_text())
    del manifest["beside"]
    (folder / "comments" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="'beside' is None, expected hashes"):
        load_comments(load_dataset(folder))


def test_made_up_comments_have_their_structure(tmp_path: Path) -> None:
    config = CommentsDemo(data_dir=tmp_path, num_users=200, num_videos=300)
    found = read(config)
    before = {file.name: file.read_bytes() for file in (tmp_path / "comments-demo").rglob("*") if file.is_file()}
    (tmp_path / "comments-demo" / ".comments.verified.json").touch()  # as a reader leaves it
    prepare(config)
    (tmp_path / "comments-demo" / ".comments.verified.json").unlink()
    assert before == {f.name: f.read_bytes() for f in (tmp_path / "comments-demo").rglob("*") if f.is_file()}
    dataset = found.dataset
    assert found.published is not None and found.item_published is not None and dataset.timestamps is not None
    # Nothing is watched or answered before it is there, and a comment is answered under what was watched.
    assert (found.item_published[dataset.items] <= dataset.timestamps).all()
    assert (found.published[found.own.items] < found.times).all()
    for user in range(dataset.num_users):
        watched = dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]]
        answered = found.own.items[found.own.offsets[user] : found.own.offsets[user + 1]]
        assert set(found.under[answered]) <= set(watched)
    # What a user watches is about few things: of ever so many events, the three most frequent of sixty have many.
    titles = dataset.item_table()["title"].to_list()
    thing = np.array([0] + [next(n for n, t in enumerate(THINGS) for f in FORMATS if f.format(t) == x) for x in titles])
    shares = []
    for user in range(dataset.num_users):
        counts = np.bincount(thing[dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]]], minlength=60)
        shares.append(np.sort(counts)[-3:].sum() / counts.sum())
    assert np.mean(shares) > 0.38  # of 22 events that know nothing of things, 0.25
