"""Histories as lists: JSON and cells, one row per user or many, by hand and against a loop."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from seqrec.basics.errors import UserError
from seqrec.data.preparation import prepare
from seqrec.data.sources.histories import HistoryFiles
from tests.test_sources import read, real, where, write

WANTED = {"u": ["3", "1", "3"], "v": ["2"]}


def users(tmp_path: Path, path: Path, **options: Any) -> dict[str, list[str]]:
    return read(HistoryFiles(**where(tmp_path), input=path, overwrite=True, **options))[0]


@pytest.mark.parametrize(
    "lists",
    [
        ("[3, 1, 3]", "[2]"),
        ("['3', '1', '3']", "['2']"),
        ('["3","1","3"]', '["2"]'),
        ("3 1 3", "2"),
        ("3,1,3", "2"),
        ("[3.0, 1.0, 3.0]", "[2.0]"),
        ("[3 1\n 3]", "[2]"),
    ],
)
def test_lists_in_the_cells_of_a_csv(tmp_path: Path, lists: tuple[str, str]) -> None:
    frame = pl.DataFrame({"user_id": ["u", "v"], "history": lists})
    path = tmp_path / "h.csv"
    frame.write_csv(path)
    assert users(tmp_path, path) == WANTED


@pytest.mark.parametrize("kind", [pl.List(pl.Int32), pl.List(pl.String), pl.List(pl.Float64), pl.String])
def test_lists_in_the_cells_of_a_parquet(tmp_path: Path, kind: Any) -> None:
    lists: Any = ["3 1 3", "2"] if kind == pl.String else [[3, 1, 3], [2]]
    if kind == pl.List(pl.String):
        lists = [["3", "1", "3"], ["2"]]
    path = tmp_path / "h.parquet"
    pl.DataFrame({"who": ["u", "v"], "what": pl.Series(lists, dtype=kind)}).write_parquet(path)
    assert users(tmp_path, path, user_column="who", history_column="what") == WANTED


@pytest.mark.parametrize("lists", [{"u": [3, 1, 3], "v": [2]}, {"u": ["3", "1", "3"], "v": ["2"]}])
def test_json(tmp_path: Path, lists: dict[str, list[Any]]) -> None:
    assert users(tmp_path, write(tmp_path / "h.json", json.dumps(lists))) == WANTED
    items = write(tmp_path / "items.json", json.dumps({"1": {"title": "One"}, "2": {"title": "Two"}, "3": {}}))
    config = HistoryFiles(
        **where(tmp_path), input=tmp_path / "h.json", items=items, on_missing_text="item_id", overwrite=True
    )
    assert read(config)[2].rows() == [(1, "3", "3"), (2, "1", "One"), (3, "2", "Two")]


def test_a_list_and_its_target(tmp_path: Path) -> None:
    text = "user_id,history_item_id,item_id\nu,\"['3', '1']\",3\nv,[],2\n"
    path = write(tmp_path / "h.csv", text)
    assert users(tmp_path, path, history_column="history_item_id", target_column="item_id") == WANTED


def test_a_row_per_target_makes_one_history(tmp_path: Path) -> None:
    # u: a b c d e, with lists cut at two items; v's rows lie between, and v has an event of which no list tells.
    rows = ["u,a,b", "v,[],x", "u,a b,c", "u,b c,d", "v,x,y", "u,c d,e"]
    path = write(tmp_path / "h.csv", "user_id,history,item\n" + "\n".join(rows) + "\n")
    assert users(tmp_path, path, target_column="item") == {"u": ["a", "b", "c", "d", "e"], "v": ["x", "y"]}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["u,a,b", "u,a c,d"], 3),  # another item
        (["u,a,b", "u,a b,c", "u,a b,d"], 4),  # two targets of one list
        (["u,b c,d", "u,a b,c"], 3),  # out of order
        (["v,a,b", "u,b,c", "u,a b c,d"], 4),  # longer than what came before, though the user above ends with it
        (["u,a,b", "u,c,d"], 3),  # one is missing between
    ],
)
def test_rows_that_do_not_follow_one_another(tmp_path: Path, rows: list[str], line: int) -> None:
    path = write(tmp_path / "h.csv", "user_id,history,item\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=rf"h\.csv, line {line}: the list of user 'u' does not end what"):
        users(tmp_path, path, target_column="item")


def test_rows_of_training_examples_equal_a_loop(tmp_path: Path) -> None:
    draw = random.Random(4)
    for cut in (1, 3, 100):
        histories = {f"u{u}": [str(draw.randrange(9)) for _ in range(draw.randrange(2, 9))] for u in range(12)}
        start = {user: draw.randrange(1, len(items)) for user, items in histories.items()}
        queue = [(user, end) for user, items in histories.items() for end in range(start[user], len(items))]
        order = draw.sample(queue, len(queue))
        lines = []
        for user, _ in order:  # each user's rows in order, the users mixed
            place = next(end for name, end in queue if name == user)
            queue.remove((user, place))
            items = histories[user]
            lines.append(f"{user},{' '.join(items[max(0, place - cut) : place])},{items[place]}")
        path = write(tmp_path / "h.csv", "user_id,history,item\n" + "\n".join(lines) + "\n")
        wanted = {user: items[max(0, start[user] - cut) :] for user, items in histories.items()}
        assert users(tmp_path, path, target_column="item") == wanted


def test_lists_without_a_target_are_beginnings_of_the_longest(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "user_id,history\nu,a b\nv,z\nu,a b c\nu,\nu,a\n")
    assert users(tmp_path, path) == {"u": ["a", "b", "c"], "v": ["z"]}
    write(path, "user_id,history\nu,a b\nu,b a c\n")
    with pytest.raises(UserError, match=r"h\.csv, line 2: the list of user 'u' is no beginning of the user's longest"):
        users(tmp_path, path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[1 2 ... 99]", r"line 2: an id is missing in user 'u' and items \['1', '2', '\.\.\.', '99'\]"),
        ('"[1, None]"', "line 2: an id is missing"),
        ("\"['', 'a']\"", "line 2: an id is missing"),
        ('"[1, nan]"', "line 2: an id is missing"),
    ],
)
def test_lists_with_something_missing(tmp_path: Path, cell: str, message: str) -> None:
    path = write(tmp_path / "h.csv", f"user_id,history\nu,{cell}\n")
    with pytest.raises(UserError, match=message):
        users(tmp_path, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", r"h\.json: expected \{user: \[item, \.\.\.\]\}, got \[1, 2\]"),
        ('{"u": 3}', "user 'u' must have a list of item ids, got 3"),
        ('{"u": [1, null]}', "user 'u' must have a list of item ids"),
        ('{"u": [[1]]}', "user 'u' must have a list of item ids"),
        ('{"u": [true]}', "user 'u' must have a list of item ids"),
        ('{"u": [1], "u": [2]}', "the key 'u' occurs twice"),
        ('{"u": []}', "holds no interactions"),
        ("{}", "holds no interactions"),
    ],
)
def test_json_that_is_no_histories(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        users(tmp_path, write(tmp_path / "h.json", content))


def test_a_column_that_holds_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    pl.DataFrame({"user_id": ["u"], "history": [3]}).write_parquet(path)
    with pytest.raises(UserError, match="'history' is a column of Int64, expected lists of item ids"):
        users(tmp_path, path)
    with pytest.raises(UserError, match=r"h\.parquet has no column 'items'; it has 'user_id', 'history'"):
        users(tmp_path, path, history_column="items")


def test_rows_without_user_or_target_are_left_out_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "user_id,history,item\nu,3 1,3\n,1,2\nv,[],2\nw,1,\n")
    with pytest.raises(UserError, match=r"h\.csv, line 3: an id is missing"):
        users(tmp_path, path, target_column="item")
    assert users(tmp_path, path, target_column="item", drop_incomplete=True) == WANTED


def test_real_histories(tmp_path: Path) -> None:
    folder = real("news-layouts")
    mind = ("impression", "user", "time", "history", "candidates")
    behaviors = folder / "MINDsmall_train" / "behaviors.tsv"
    read_mind = users(tmp_path, behaviors, header=mind, user_column="user")
    rows = [line.split("\t") for line in behaviors.read_text().splitlines()]
    assert read_mind == {row[1]: row[3].split() for row in rows if row[3]}
    danish = users(tmp_path, folder / "ebnerd" / "history.parquet", history_column="article_id_fixed")
    assert len(danish) == 44
    assert max(map(len, danish.values())) == 700
    with pytest.raises(UserError, match="items have no text"):
        prepare(
            HistoryFiles(
                **where(tmp_path), input=behaviors, header=mind, user_column="user",
                items=folder / "MINDsmall_train" / "news.tsv", attributes="title,abstract",
                items_header=("id", "category", "subcategory", "title", "abstract", "url", "entities", "more"),
            )
        )  # fmt: skip
