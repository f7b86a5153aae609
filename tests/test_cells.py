"""Lists in cells and ids written as fractions, by hand and against Python's own readers."""

import json
from datetime import date, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.basics.errors import UserError
from seqrec.data.sources.cells import join_lists, plain_ids, split_lists


def split(*cells: str | None) -> list[list[str]]:
    frame = pl.DataFrame({"cell": cells}, schema={"cell": pl.String})
    return frame.select(split_lists(pl.col("cell"))).to_series().to_list()


@pytest.mark.parametrize(
    ("cell", "elements"),
    [
        ("[1, 2, 3]", ["1", "2", "3"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b c']", ["a", "b c"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),  # numpy's way
        ("[1 2\n 3]", ["1", "2", "3"]),
        ("1 2  3", ["1", "2", "3"]),
        ("a,b", ["a", "b"]),
        ('["it\'s", \'so "big"\']', ["it's", 'so "big"']),
        (r"""['it\'s', "a\\b"]""", ["it's", "a\\b"]),
        (r'["caf\u00e9", "a\/b", "\ud83c\udf75"]', ["caf\u00e9", "a/b", "\U0001f375"]),
        ("[['Beauty', 'Hair'], ['Care']]", ["Beauty", "Hair", "Care"]),
        ("('a', 'b')", ["a", "b"]),
        ("a(1) b(2)", ["a(1)", "b(2)"]),
        ("[]", []),
        ("  ", []),
        ("", []),
        (None, []),
        ("['']", [""]),
    ],
)
def test_lists_by_hand(cell: str | None, elements: list[str]) -> None:
    assert split(cell, "[9]") == [elements, ["9"]]


@given(st.lists(st.lists(st.text(max_size=6), max_size=4), min_size=1, max_size=4))
@settings(max_examples=150)
def test_what_json_and_python_write_is_read_back(lists: list[list[str]]) -> None:
    assert split(*map(json.dumps, lists)) == lists
    assert split(*(json.dumps(texts, ensure_ascii=False) for texts in lists)) == lists
    assert split(*map(repr, lists)) == lists


def test_texts_are_joined_only_where_the_whole_column_is_lists() -> None:
    table = pl.DataFrame(
        {
            "lists": ["['Beauty', 'Hair']", "", None],
            "title": ["[REC]", "Jaws", "['n' Roll]"],
            "real": [["a", "b"], [], None],
            "number": [1, 2, 3],
        }
    )
    joined = join_lists(table, ["lists", "title", "real", "number"], "x.csv")
    assert joined["lists"].to_list()[:1] == ["Beauty Hair"]
    assert set(joined["lists"].to_list()[1:]) == {""}
    assert joined["title"].to_list() == table["title"].to_list()
    assert joined["real"].to_list() == ["a b", "", None]
    assert joined["number"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    ("ids", "plain"),
    [
        ([17850.0, None, 13047.0], [17850, None, 13047]),
        ([17850.0, float("nan")], [17850, None]),
        (["17850.0", None, "13047.0"], ["17850", None, "13047"]),
        (["17850.0", "13047"], ["17850.0", "13047"]),  # two ways to write one id in a file: nobody's guess
        (["1.50", "2.0"], ["1.50", "2.0"]),
        ([1, 2], [1, 2]),
        ([Decimal("17850.00"), Decimal("9007199254740993")], ["17850", "9007199254740993"]),
        (["B00", "B01.0"], ["B00", "B01.0"]),
    ],
)
def test_whole_ids(ids: list[object], plain: list[object]) -> None:
    frame = pl.LazyFrame({"id": ids})
    assert plain_ids(frame, "id", "x.csv").collect()["id"].to_list() == plain


@pytest.mark.parametrize("value", [1.5, 2.0**53, -(2.0**60)])
def test_ids_that_a_float_does_not_hold(value: float) -> None:
    with pytest.raises(UserError, match=r"x\.csv: the id .* in 'id' is no whole number below 9,007,199,254,740,992"):
        plain_ids(pl.LazyFrame({"id": [1.0, value]}), "id", "x.csv")


@pytest.mark.parametrize(
    "values", [["a"], [b"\xff"], {"a": 1}, timedelta(1), date(2024, 1, 1), True, [[1]]], ids=lambda value: repr(value)
)
def test_columns_that_hold_no_ids(values: object) -> None:
    frame = pl.LazyFrame({"id": [values, values]})
    with pytest.raises(UserError, match=r"x\.parquet: the ids in 'id' are .*, expected text or whole numbers"):
        plain_ids(frame, "id", "x.parquet")


@pytest.mark.parametrize("values", [b"\xff", {"a": 1}, timedelta(1), [[1]], [b"\xff"]], ids=lambda value: repr(value))
def test_columns_that_hold_no_text(values: object) -> None:
    with pytest.raises(UserError, match=r"x\.parquet: 'text' holds .*, expected text; .*--attributes"):
        join_lists(pl.DataFrame({"text": [values, values]}), ["text"], "x.parquet")
