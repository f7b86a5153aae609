"""Items in every form that people have, and the choice of rows, by hand."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.atomic import Atomic
from seqrec.data.sources.sequences import Sequences
from seqrec.data.sources.table import TableFile
from seqrec.data.sources.tabular import read_items
from tests.test_sources import read, real, where, write

GENRES = "|0" * 19


def write_forms(folder: Path) -> dict[str, Path]:
    """Write items 7, "Tea, green", and 12, "Cup", in each form."""
    titles = {"7": "Tea, green", "12": "Cup"}
    pl.DataFrame({"id": [7, 12], "title": list(titles.values())}).write_parquet(folder / "i.parquet")
    pl.DataFrame({"id": [7.0, 12.0], "title": list(titles.values())}).write_parquet(folder / "floats.parquet")
    return {
        "csv": write(folder / "i.csv", 'id,title\n7,"Tea, green"\n12,Cup\n'),
        "csv of floats": write(folder / "floats.csv", 'id,title\n7.0,"Tea, green"\n12.0,Cup\n'),
        "tsv": write(folder / "i.tsv", "id\ttitle\n7\tTea, green\n12\tCup\n"),
        "txt of tabs": write(folder / "tabs.txt", "id\ttitle\n7\tTea, green\n12\tCup\n"),
        "lines": write(folder / "i.txt", "7 Tea, green\n\n12   Cup \r\n"),
        "json of titles": write(folder / "titles.json", json.dumps(titles)),
        "json of objects": write(folder / "objects.json", json.dumps({k: {"title": v} for k, v in titles.items()})),
        "json list": write(folder / "list.json", json.dumps([{"id": int(k), "title": v} for k, v in titles.items()])),
        "parquet": folder / "i.parquet",
        "parquet of floats": folder / "floats.parquet",
    }


def test_every_form_of_items_says_the_same(tmp_path: Path) -> None:
    for form, path in write_forms(tmp_path).items():
        scratch = tmp_path / form
        scratch.mkdir()
        assert read_items(path, scratch).rows() == [("7", "Tea, green"), ("12", "Cup")], form
    write(tmp_path / "movies.dat", "7::Tea, green::Drama\n12::Cup::\n")
    assert read_items(tmp_path / "movies.dat", tmp_path).select("raw_id", "title").rows()[0] == ("7", "Tea, green")
    write(tmp_path / "u.item", f"7|Tea, green|x||y{GENRES}\n12|Cup|x||y{GENRES}\n")
    assert read_items(tmp_path / "u.item", tmp_path)["title"].to_list() == ["Tea, green", "Cup"]


def test_a_table_and_lines_take_the_same_items(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", "user_id,item_id\na,7.0\na,12.0\n")
    lines = write(tmp_path / "lines.txt", "a 7 12\n")
    for path in write_forms(tmp_path).values():
        expected = [(1, "7", "Tea, green"), (2, "12", "Cup")]
        assert read(TableFile(**where(tmp_path), input=rows, items=path, overwrite=True))[2].rows() == expected
        assert read(Sequences(**where(tmp_path), input=lines, items=path, overwrite=True))[2].rows() == expected


@pytest.mark.parametrize("ending", ["txt", "parquet"])
def test_a_files_name_is_no_pattern(tmp_path: Path, ending: str) -> None:
    for name, title in (("a*b", "Tea"), ("a[x]b", "Cup"), ("axb", "Pot")):
        path = tmp_path / f"{name}.{ending}"
        if ending == "txt":
            write(path, f"\ufeff7 {title}\n")  # with the mark that Windows puts first
        else:
            pl.DataFrame({"id": [7], "title": [title]}).write_parquet(path)
        assert read_items(path, tmp_path).rows() == [("7", title)]


def test_packed_lines_of_items(tmp_path: Path) -> None:
    path = tmp_path / "i.txt.gz"
    path.write_bytes(gzip.compress("7 Té, vert\n".encode()))
    assert read_items(path, tmp_path).rows() == [("7", "Té, vert")]
    path = tmp_path / "i.txt"
    path.write_bytes("7 Té, vert\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"i\.txt, line 1: not UTF-8"):
        read_items(path, tmp_path)


def test_json_items_have_their_attributes_in_order_and_lists_joined(tmp_path: Path) -> None:
    content = {"a": {"title": "Tea", "tags": ["hot", "green"]}, "b": {"brand": "Lim", "title": None}, "c": {}}
    table = read_items(write(tmp_path / "i.json", json.dumps(content)), tmp_path)
    assert table.columns == ["raw_id", "title", "tags", "brand"]
    assert table.rows() == [("a", "Tea", "hot green", None), ("b", None, None, "Lim"), ("c", None, None, None)]


def test_lists_written_in_a_csv_of_items_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", "id,tags,title\na,\"['hot', 'green']\",[REC]\nb,[],Cup\n")
    assert read_items(path, tmp_path).rows() == [("a", "hot green", "[REC]"), ("b", "", "Cup")]


def test_a_headerless_table_of_items(tmp_path: Path) -> None:
    path = write(tmp_path / "i.tsv", "7\tfood\tTea\n12\tware\tCup\n")
    table = read_items(path, tmp_path, header=("id", "kind", "title"), wanted=("title",))
    assert table.rows() == [("7", "Tea"), ("12", "Cup")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.csv", "id\n7\n", r"i\.csv: expected an id column and at least one of text, it has id"),
        ("i.json", "[7, 12]", r"i\.json: expected \{id: title\}.*got \[7, 12\]"),
        ("i.json", "3", r"i\.json: expected \{id: title\}"),
        ("i.json", '{"7": [1]}', "item '7' must have a title or an object of attributes"),
        (
            "i.json",
            '[{"id": 7, "title": "Tea"}, {"id": 7, "title": "Cup"}]',
            "objects 1 and 2: item id '7' occurs twice",
        ),
        ("i.json", '[{"id": 7, "title": "Tea"}, {"title": "Cup"}]', "object 2: an item without id"),
        ("i.json", '{"7": "Tea", "7": "Cup"}', "the key '7' occurs twice"),
        ("i.txt", "7 Tea\n\n7 Cup\n", r"i\.txt, lines 1 and 3: item id '7' occurs twice"),
        ("i.csv", "id,title\n7,Tea\n,Cup\n", r"i\.csv, line 3: an item without id"),
        ("i.csv", "id,line\n7,Tea\n7,Cup\n", r"i\.csv, lines 2 and 3: item id '7' occurs twice"),
        ("i.csv", "id,raw_id,title\n7,x,Tea\n", "has a column 'raw_id' beside 'id': --id_column"),
        ("i.xls", "", r"expected \.csv"),
    ],
)
def test_faulty_items(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_items(write(tmp_path / name, content), tmp_path)


def test_items_without_text_are_refused_by_a_table_too(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", "user_id,item_id\na,7\n")
    with pytest.raises(UserError, match="expected an id column and at least one of text, it has id"):
        prepare(TableFile(**where(tmp_path), input=rows, items=write(tmp_path / "i.csv", "id\n7\n")))


def test_an_attribute_with_the_name_of_a_datasets_column(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", "user_id,item_id\na,7\n")
    options: Any = {"input": rows, "items": write(tmp_path / "i.csv", "id,item,title\n7,x,Tea\n"), **where(tmp_path)}
    with pytest.raises(UserError, match=r"an attribute called 'item'.*--attributes"):
        prepare(TableFile(**options))
    assert read(TableFile(**options, attributes="title"))[2].rows() == [(1, "7", "Tea")]


def test_atomic_files_take_items_in_any_form_too(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\na\t7\na\t12\n")
    for path in write_forms(tmp_path).values():
        table = read(Atomic(**where(tmp_path), input=tmp_path, items=path, overwrite=True))[2]
        assert table.rows() == [(1, "7", "Tea, green"), (2, "12", "Cup")]


# --- the choice of rows

RETAIL = """InvoiceNo,StockCode,Quantity,UnitPrice,CustomerID,Country
A1,85123A,6,2.55,17850.0,United Kingdom
A1,71053,1,3.39,17850.0,United Kingdom
C2,71053,-1,3.39,17850.0,United Kingdom
A3,22752,2,NaN,13047.0,France
A4,POST,1,18.0,,France
A5,,1,2.0,13047.0,France
A6,22752,12,0.0,13047.0,France
"""


def retail(folder: Path, **options: Any) -> TableFile:
    path = write(folder / "retail.csv", RETAIL)
    columns = {"user_column": "CustomerID", "item_column": "StockCode"}
    return TableFile(**where(folder), input=path, overwrite=True, **columns, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where_option", "expected"),
    [
        ("Quantity > 0", {"17850": ["85123A", "71053"], "13047": ["22752", "22752"]}),
        ("InvoiceNo NOT LIKE 'C%'", {"17850": ["85123A", "71053"], "13047": ["22752", "22752"]}),
        ('"UnitPrice" > 0', {"17850": ["85123A", "71053", "71053"]}),  # NaN is no number above 0
        ("Country = 'France' AND Quantity BETWEEN 2 AND 11", {"13047": ["22752"]}),
        ("CustomerID = 13047", {"13047": ["22752", "22752"]}),
    ],
)
def test_where(tmp_path: Path, where_option: str, expected: dict[str, list[str]]) -> None:
    assert read(retail(tmp_path, where=where_option, drop_incomplete=True))[0] == expected


def test_rows_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"retail\.csv, line 6: no valid user"):
        prepare(retail(tmp_path))
    with pytest.raises(UserError, match=r"retail\.csv, line 7: no valid item"):  # lines are those of the whole file
        prepare(retail(tmp_path, where="InvoiceNo <> 'A4'"))
    with caplog.at_level(logging.INFO):
        prepare(retail(tmp_path, where="Quantity > 0", drop_incomplete=True))
    assert "--where 'Quantity > 0' removed 1 of 7 rows of retail.csv" in caplog.text
    assert "--drop_incomplete, by 'CustomerID' and 'StockCode', removed 2 of 6 rows of retail.csv" in caplog.text


@pytest.mark.parametrize(
    ("where_option", "message"),
    [
        ("Amount > 0", 'unable to find column "Amount"'),
        ("Quantity >", "unable to parse 'Quantity >'"),
        ("Quantity", "is Int64, not true or false"),
        ("Country > 0", "cannot compare string with numeric"),
        ("read_csv('x') > 0", "unsupported function 'read_csv'"),
        ("Quantity > (SELECT 1)", "not allowed"),
        ("Quantity > 0; DROP TABLE x", "unexpected token"),
        ("", "unable to parse"),
        ("(" * 3000 + "1" + ")" * 3000 + " = 1", "unable to parse"),
    ],
)
def test_a_where_that_is_no_condition_names_the_columns(tmp_path: Path, where_option: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        prepare(retail(tmp_path, where=where_option))
    assert "'InvoiceNo', 'StockCode', 'Quantity', 'UnitPrice', 'CustomerID', 'Country'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_of_floats_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"user_id": [17850.0, None, float("nan"), 13047.0], "item_id": ["x", "y", "z", " "]})
    frame.write_parquet(path)
    with pytest.raises(UserError, match=r"t\.parquet, .* 2: no valid user"):
        prepare(TableFile(**where(tmp_path), input=path))
    assert read(TableFile(**where(tmp_path), input=path, drop_incomplete=True))[0] == {"17850": ["x"]}


def test_a_folder_of_parquet_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    with pytest.raises(MissingFileError, match=r"has no \.parquet file \(it has nothing\)"):
        prepare(TableFile(**where(tmp_path), input=folder))
    for name in ("_SUCCESS", ".part-00000.parquet.crc", "_metadata.parquet"):
        (folder / name).write_text("")
    rows = [("b", "x", 3), ("a", "x", 1), ("b", "y", 1), ("a", "z", 9), ("b", "z", 2)]
    for number, part in enumerate((rows[:2], rows[2:3], rows[3:])):
        frame = pl.DataFrame(part, schema=["user_id", "item_id", "ts"], orient="row")
        frame.write_parquet(folder / f"part-{number:05d}.parquet")
    assert read(TableFile(**where(tmp_path), input=folder))[0] == {"b": ["x", "y", "z"], "a": ["x", "z"]}
    timed = TableFile(**where(tmp_path), input=folder, timestamp_column="ts", overwrite=True)
    assert read(timed)[0] == {"b": ["y", "z", "x"], "a": ["x", "z"]}
    pl.DataFrame({"user_id": ["c"], "item": ["x"]}).write_parquet(folder / "part-00001.parquet")
    with pytest.raises(UserError, match=r"part-00001\.parquet has other columns .* differ in item, item_id, ts"):
        prepare(TableFile(**where(tmp_path), input=folder))
    (folder / "part-00002.parquet").write_bytes(b"user_id,item_id")
    with pytest.raises(UserError, match=r"part-0000[12]\.parquet"):
        prepare(TableFile(**where(tmp_path), input=folder))


def test_a_headerless_table(tmp_path: Path) -> None:
    path = write(tmp_path / "u.tsv", "a\tx\t5\na\ty\t1\n")
    config = TableFile(
        **where(tmp_path), input=path, header=("user", "item", "stars"), user_column="user", item_column="item"
    )
    assert read(config)[0] == {"a": ["x", "y"]}


def test_real_tables(tmp_path: Path) -> None:
    folder = real("hm-week")
    config = TableFile(
        **where(tmp_path), input=folder / "interactions.parquet", items=folder / "items.parquet",
        timestamp_column="timestamp", attributes="title,description", where="sales_channel_id = 2",
    )  # fmt: skip
    raw = pl.read_parquet(folder / "interactions.parquet").filter(pl.col("sales_channel_id") == 2)
    assert len(load_dataset(prepare(config)).items) == len(raw)
    lines = write(tmp_path / "i.txt", "\n".join(f"{n} {' '.join(t.split())}" for n, t in pl.read_csv(
        real("microlens-50k") / "MicroLens-50k_titles.csv").rows()))  # fmt: skip
    both = [real("microlens-50k") / "MicroLens-50k_titles.csv", lines]
    assert read_items(both[0], tmp_path)["raw_id"].equals(read_items(both[1], tmp_path)["raw_id"])


def test_items_that_share_a_value_are_one(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", "user_id,item_id,time\na,1,1\na,2,2\na,4,3\nb,3,1\n")
    items = write(tmp_path / "items.csv", "id,kind,title\n1,x,Tea\n2,x,Green tea\n3,y,Cup\n4,y,Mug\n5,z,Pot\n")
    config = TableFile(
        **where(tmp_path), input=rows, items=items, id_column="id", merge_by="kind", timestamp_column="time"
    )
    found = read(config)
    assert found[0] == {"a": ["x", "x", "y"], "b": ["y"]}
    assert found[2].rows() == [(1, "x", "Tea"), (2, "y", "Cup")]
    write(tmp_path / "items.csv", "id,kind,title\n1,x,Tea\n2,x,Green tea\n3,y,Cup\n")
    with pytest.raises(UserError, match=r"rows.csv, line 4: item '4' has no 'kind' in .*items.csv"):
        prepare(config)
    with pytest.raises(UserError, match="--merge_by kind is a column of the items' table: give --items and"):
        TableFile(**where(tmp_path), input=rows, merge_by="kind")
