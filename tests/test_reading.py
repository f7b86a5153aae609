"""What sources make of files that are nearly right: ids, times, bytes and paths that would become other data."""

import gzip
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.basics.errors import UserError
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources import json_text, reading
from seqrec.data.sources.amazon import Amazon
from seqrec.data.sources.atomic import Atomic
from seqrec.data.sources.corpus import Corpus
from seqrec.data.sources.movielens import MovieLens
from seqrec.data.sources.pickled import load_plain_pickle
from seqrec.data.sources.recformer import JsonSplits
from seqrec.data.sources.sequences import Sequences
from seqrec.data.sources.table import TableFile


def where(folder: Path) -> dict[str, Any]:
    return {"name": "x", "data_dir": folder / "data"}


def read(config: Preparation) -> dict[str, list[str]]:
    """Return each user's raw items in order of time."""
    dataset = load_dataset(prepare(config))
    names = ["", *dataset.item_table()["raw_id"]]
    rows = np.split(dataset.items, dataset.offsets[1:-1])
    return {u: [names[i] for i in row] for u, row in zip(dataset.user_table()["raw_id"], rows, strict=True)}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(folder: Path, content: str | bytes, **options: Any) -> TableFile:
    return TableFile(**where(folder), input=write(folder / "in" / "t.csv", content), **options)


# --- ids that would become others


def test_an_index_that_the_file_lacks_does_not_become_another_user(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\n0\ta\n7\tb\n")
    write(tmp_path / "m.user2index", "7\t0\nbob\t1\n")
    with pytest.raises(UserError, match=r"user '7' is out of range: m\.user2index numbers 2 users"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_an_index_that_the_file_lacks_does_not_become_another_item(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\nu\t1\nu\t2\nu\t3\n")
    write(tmp_path / "m.item2index", "3\t1\n10\t2\n")
    with pytest.raises(UserError, match=r"item '3' of user 'u' is out of range: m\.item2index numbers 2 items"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_numeric_raw_ids_are_kept_apart_from_indices(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\n0\t1\n1\t2\n0\t2\n")
    write(tmp_path / "m.user2index", "1\t0\n0\t1\n")
    write(tmp_path / "m.item2index", "2\t1\n1\t2\n")
    assert read(Atomic(**where(tmp_path), input=tmp_path)) == {"1": ["2", "1"], "0": ["1"]}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path, zipped: bool) -> None:
    def with_mark(name: str, content: str) -> Path:
        coded = b"\xef\xbb\xbf" + content.encode()
        return write(tmp_path / name, gzip.compress(coded) if zipped else coded)

    lines = with_mark("s.txt", "u1 a b\nu1 c\n")
    assert read(Sequences(**where(tmp_path), input=lines)) == {"u1": ["a", "b", "c"]}
    csv = with_mark("c.csv", "user_id,item_id\nu1,a\n")
    assert read(TableFile(**{**where(tmp_path), "name": "c"}, input=csv)) == {"u1": ["a"]}
    reviews = with_mark("r.json", '{"reviewerID":"u1","asin":"a","unixReviewTime":1,"overall":5}\n')
    meta = with_mark("m.json", '{"asin":"a","title":"A"}\n')
    assert read(Amazon(**{**where(tmp_path), "name": "a"}, reviews=reviews, meta=meta)) == {"u1": ["a"]}


def test_blank_ids_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv, line 3: no valid item in .*'item_id': ' '"):
        prepare(table(tmp_path, 'user_id,item_id\nu,a\nu," "\n'))
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["", "b"]})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, row 1: no valid item"):
        prepare(TableFile(**where(tmp_path), input=tmp_path / "t.parquet"))
    pl.DataFrame({"user_id": [1, 2], "item_id": [3.0, float("nan")]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, row 2: no valid item"):
        prepare(TableFile(**where(tmp_path), input=tmp_path / "t.parquet"))


def test_ids_that_are_objects_are_refused(tmp_path: Path) -> None:
    review = '{"reviewerID":%s,"asin":"a","unixReviewTime":1,"overall":5}\n'
    write(tmp_path / "meta_x.json", '{"asin":"a","title":"A"}\n')
    write(tmp_path / "x.json", review % '"u"' + review % '{"1": 2}')
    with pytest.raises(UserError, match=r"x\.json, line 2: expected ids as text or whole numbers, got"):
        prepare(Amazon(**where(tmp_path), input=tmp_path))
    pl.DataFrame({"user_id": [{"a": 1}], "item_id": ["b"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="ids in 'user_id' are Struct"):
        prepare(TableFile(**where(tmp_path), input=tmp_path / "t.parquet"))


def write_recformer(folder: Path, **files: Any) -> JsonSplits:
    content = {
        "train": {"0": [0, 1]},
        "val": {"0": [2]},
        "test": {"0": [0]},
        "smap": {"a": 0, "b": 1, "c": 2},
        "umap": {"ann": 0},
        "meta_data": {"a": "A", "b": "B", "c": "C"},
    }
    for name, value in {**content, **files}.items():
        write(folder / f"{name}.json", value if isinstance(value, str) else json.dumps(value))
    return JsonSplits(**where(folder), input=folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"umap": {"ann": 0, "bob": 0}}, "umap gives one id to two users"),
        ({"umap": {"0": 1}}, "user '0' is out of range: umap numbers 1 users"),
        ({"smap": {"a": 0, "b": 1, "c": 2**63}}, r"without gap or repeat, its ids are 0\.\.9223372036854775808"),
        ({"train": {"0": [0, 2**70]}}, r"item a number of 71 bits of user 0 is out of range: smap numbers 0\.\.2"),
        ({"smap": "[" * 5000}, r"smap\.json: brackets are nested too deeply"),
        ({"smap": '{"a": %s}' % ("9" * 5000)}, r"smap\.json: Exceeds the limit"),
        ({"meta_data": '{"a": "\\ud800"}'}, r"meta_data\.json: .* half of a character"),
        ({"meta_data": {"a": {"title": {"1": 2}}}}, "'title' holds {'1': 2}, expected text or a list of texts"),
        ({"meta_data": {"a": {"raw_id": "b"}}}, "an attribute is called 'raw_id'"),
        ({"meta_data": {"a": {"item": "b"}}}, "attribute called 'item'"),
        ({"smap": []}, r"smap\.json: expected an object of item ids, got \[\]"),
    ],
)
def test_recformer_files_that_mislead(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(write_recformer(tmp_path, **files))


def test_recformer_users_come_from_umap(tmp_path: Path) -> None:
    assert read(write_recformer(tmp_path)) == {"ann": ["a", "b", "c", "a"]}


@pytest.mark.parametrize(
    "content",
    [b"\x80\x04}\x94(K\x01", b"\x80\x04\x8c\xff", b"\x80\xff.", b"(d", b"garbage", b"\x80\x04]\x94b.", b"", b"I9x\n."],
)
def test_damaged_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"d\.pkl can't be read as a pickle of dict, list, int and str"):
        load_plain_pickle(write(tmp_path / "d.pkl", content))


# --- columns and headers


def test_columns_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv: the column 'item_id' occurs twice in its header"):
        prepare(table(tmp_path, "user_id,item_id,item_id\n1,2,3\n"))
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\titem_id:float\n1\t2\t3\n")
    with pytest.raises(UserError, match=r"m\.inter: the column 'item_id' occurs twice"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    content = "line,user,item,timestamp\n9,30,b,u\n8,10,a,u\n7,20,c,u\n"
    columns = {"user_column": "timestamp", "item_column": "item", "timestamp_column": "user"}
    assert read(table(tmp_path, content, **columns)) == {"u": ["a", "c", "b"]}
    with pytest.raises(UserError, match=r"line 3: no valid item"):
        prepare(table(tmp_path, "line,user_id,item_id\n9,u,a\n9,u,\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"user_id": 1, "item_id": 2}]\n', "expected the names of columns, got JSON"),
        (b"PAR1xxxx", "is a Parquet file: its name must end in .parquet"),
        (b"PK\x03\x04xx", "a zip archive or an Excel file"),
        ("user_id,item_id\n1,2\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"user_id,item_id\r1,2\r", "lines end with a carriage return alone"),
        (b"user_id,item_id\n1,2\n\xff,3\n", r"t\.csv, line 3: not UTF-8 \(byte 0xff\)"),
        (b"", "is empty"),
        (b"user_id,item\r_id\nu,a\n", "has no column 'item_id'"),
        (gzip.compress(b"user_id,item_id\n1,2\n", mtime=0)[:-9], "gzip stream breaks off"),
        ('user_id,item_id\n1,"2\n3,4\n', "Is a quotation mark left open"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(table(tmp_path, content))


def test_parquet_that_is_none_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user_id": [1], "item_id": [2]}).write_parquet(path)
    whole = path.read_bytes()
    write(path, whole[:-20])
    with pytest.raises(UserError, match=r"t\.parquet can't be read \(.*is the file whole"):
        prepare(TableFile(**where(tmp_path), input=path))
    for at in range(4, len(whole), 31):  # no bit that flips is a traceback
        write(path, whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(UserError):
            prepare(TableFile(**where(tmp_path), overwrite=True, input=path))
    write(path, "user_id,item_id\n")
    with pytest.raises(UserError, match=r"t\.parquet is no Parquet file, it begins with b'user_id"):
        prepare(TableFile(**where(tmp_path), input=path))


def test_a_corpus_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--datasets names none"):
        prepare(Corpus(**where(tmp_path), datasets=()))


# --- paths


def test_no_path_is_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "br[1]x"
    write(folder / "x*.csv", "user_id,item_id\nu,a\n")
    write(folder / "xy.csv", "user_id,item_id\nu,b\n")
    write(folder / "i?.csv", "id,title\na,A\n")
    config = TableFile(name="a[b]", data_dir=folder / "d*", input=folder / "x*.csv", items=folder / "i?.csv")
    assert read(config) == {"u": ["a"]}
    write(folder / "s[1].txt", "u a b\n")
    assert read(Sequences(name="s", data_dir=folder / "d*", input=folder / "s[1].txt")) == {"u": ["a", "b"]}
    write(folder / "r.json", '{"reviewerID":"u","asin":"a","unixReviewTime":1,"overall":5}\n')
    write(folder / "meta_r.json", '{"asin":"a","title":"A"}\n')
    assert read(Amazon(name="r", data_dir=folder / "d*", input=folder)) == {"u": ["a"]}
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}).write_parquet(folder / "p[1].parquet")
    assert read(TableFile(name="p", data_dir=folder / "d*", input=folder / "p[1].parquet")) == {"u": ["a"]}


# --- times


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_rows_are_in_the_order_of_the_times_as_given(tmp_path: Path, unit: str) -> None:
    per = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = [1_600_000_000 * per + part for part in (9, 5, 1)]
    content = "user_id,item_id,t\n" + "".join(f"u,i{at},{time}\n" for at, time in enumerate(times))
    config = table(tmp_path, content, timestamp_column="t", time_unit=unit)
    assert read(config) == {"u": ["i2", "i1", "i0"]}
    stored = load_dataset(tmp_path / "data" / "x").timestamps
    assert stored is not None
    assert stored.tolist() == [1_600_000_000] * 3


def test_fractions_of_seconds_order_rows_in_every_source(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:t\titem_id:t\ttimestamp:float\nu\ta\t1.9\nu\tb\t1.1\nu\tc\t1.5\n")
    assert read(Atomic(**where(tmp_path), input=tmp_path)) == {"u": ["b", "c", "a"]}
    write(tmp_path / "ml" / "ratings.dat", "u::1::5::1527811200.5\nu::2::5::1527811200.0\nu::3::5::1527811199\n")
    write(tmp_path / "ml" / "movies.dat", "1::A::g\n2::B::g\n3::C::g\n")
    assert read(MovieLens(**{**where(tmp_path), "name": "ml"}, input=tmp_path / "ml")) == {"u": ["3", "2", "1"]}
    rows = [(1_600_000_000_900, "a"), (1_600_000_000_100, "b")]
    reviews = "".join(
        json.dumps({"user_id": "u", "parent_asin": i, "timestamp": t, "rating": 5}) + "\n" for t, i in rows
    )
    write(tmp_path / "az" / "x.json", reviews)
    write(tmp_path / "az" / "meta_x.json", "".join(f'{{"parent_asin":"{i}","title":"T"}}\n' for i in "ab"))
    assert read(Amazon(**{**where(tmp_path), "name": "az"}, input=tmp_path / "az")) == {"u": ["b", "a"]}


def test_iso_times_with_and_without_an_offset(tmp_path: Path) -> None:
    times = [
        "2024-05-01 12:30:00.250",
        "2024-05-01T14:30:00+02:00",
        "2024-05-01T12:29:59Z",
        "2024-05-01 07:00:00.125 -0530",
        "2024-05-01",
        "2024-05-01 12:30",
    ]
    content = "user_id,item_id,t\n" + "".join(f"u,{at},{time}\n" for at, time in enumerate(times))
    assert read(table(tmp_path, content, timestamp_column="t", time_unit="iso")) == {
        "u": ["4", "2", "1", "5", "3", "0"]
    }
    noon = int(datetime(2024, 5, 1, 12, 30, tzinfo=UTC).timestamp())
    stored = load_dataset(tmp_path / "data" / "x").timestamps
    assert stored is not None
    assert stored.tolist() == [noon - 12 * 3600 - 1800, noon - 1, noon, noon, noon, noon]


def test_other_texts_need_a_format(tmp_path: Path) -> None:
    content = "user_id,item_id,t\nu,a,12/01/2010 8:26\nu,b,11/30/2010 8:26\n"
    with pytest.raises(UserError, match=r"line 2: no valid timestamp in .*expected an ISO time .*--time_format"):
        prepare(table(tmp_path, content, timestamp_column="t", time_unit="iso"))
    with pytest.raises(UserError, match=r"line 2: .*expected a number, time in s since 1970; --time_unit iso"):
        prepare(table(tmp_path, content, timestamp_column="t"))
    with pytest.raises(UserError, match=r"line 3: .*expected a time like '%d/%m/%Y %H:%M'"):
        prepare(table(tmp_path, content, timestamp_column="t", time_format="%d/%m/%Y %H:%M"))
    assert read(table(tmp_path, content, timestamp_column="t", time_format="%m/%d/%Y %H:%M")) == {"u": ["b", "a"]}


def test_times_in_another_unit_are_found_before_publishing(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp\nu,a,1600000000\nu,b,1700000000000\n"
    with pytest.raises(
        UserError, match=r"line 3: .*in the year 55,84\d; it is a time of 2024 in ms: give --time_unit ms"
    ):
        prepare(table(tmp_path, content, timestamp_column="timestamp"))
    write(tmp_path / "m.inter", content.replace(",", "\t"))
    with pytest.raises(UserError, match=r"m\.inter, line 3: .*in the year 55,84\d"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    assert not list((tmp_path / "data").iterdir())


def test_seconds_given_as_milliseconds_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "user_id,item_id,t\nu,a,1600000000\n"
    with caplog.at_level(logging.WARNING):
        prepare(table(tmp_path, content, timestamp_column="t", time_unit="ms"))
    assert "read in ms, the latest time is 1970-01-19 12:26:40; are they in s?" in caplog.text


@pytest.mark.parametrize(
    ("column", "unit", "message"),
    [
        (pl.Series([5]), "iso", "column of Int64, which can't be read as times by --time_unit iso"),
        (pl.Series([[5]]), "s", "column of List"),
        (pl.Series([b"5"]), "s", "column of Binary"),
        (pl.Series([5]).cast(pl.Duration("ms")), "s", "column of Duration"),
        (pl.Series([5]).cast(pl.Time), "s", "column of Time"),
        (pl.Series([{"a": 5}]), "s", "column of Struct"),
        (pl.Series([True]), "s", "column of Boolean"),
    ],
)
def test_columns_that_hold_no_times(tmp_path: Path, column: pl.Series, unit: str, message: str) -> None:
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "t": column}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=message):
        prepare(TableFile(**where(tmp_path), input=tmp_path / "t.parquet", timestamp_column="t", time_unit=unit))  # type: ignore[arg-type]
    if unit == "s" and column.dtype != pl.Int64:
        with pytest.raises(UserError, match=f"{message}.*, expected numbers as ratings"):
            prepare(TableFile(**where(tmp_path), input=tmp_path / "t.parquet", rating_column="t"))


def test_columns_of_dates_keep_their_resolution_and_zone(tmp_path: Path) -> None:
    hours = [datetime(2024, 5, 1, 12, 0, 0, part) for part in (900, 100)]
    times = pl.Series(hours).cast(pl.Datetime("ns")).dt.replace_time_zone("Asia/Kolkata")
    pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "t": times}).write_parquet(tmp_path / "t.parquet")
    assert read(TableFile(**where(tmp_path), input=tmp_path / "t.parquet", timestamp_column="t")) == {"u": ["b", "a"]}
    stored = load_dataset(tmp_path / "data" / "x").timestamps
    assert stored is not None
    assert stored[0] == datetime(2024, 5, 1, 6, 30, tzinfo=UTC).timestamp()


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_dat_files_are_utf_8_or_latin_1_and_only_newlines_end_lines(tmp_path: Path, encoding: str) -> None:
    titles = ["Léon", "Å la carte\x85", "c\x0bd\x1ee"]  # Å in UTF-8 ends in the byte 0x85
    movies = "".join(f"{at}::{title}::g\r\n" for at, title in enumerate(titles))
    write(tmp_path / "movies.dat", movies.encode(encoding))
    write(tmp_path / "ratings.dat", "".join(f"u::{at}::5::{at}\r\n" for at in range(3)))
    dataset = load_dataset(prepare(MovieLens(**where(tmp_path), input=tmp_path)))
    assert dataset.item_table()["title"].to_list() == ["Léon", "Å la carte", "c d e"]


def test_an_empty_movies_file(tmp_path: Path) -> None:
    write(tmp_path / "movies.dat", "")
    write(tmp_path / "ratings.dat", "u::1::5::1\n")
    with pytest.raises(UserError, match=r"movies\.dat is empty"):
        prepare(MovieLens(**where(tmp_path), input=tmp_path))


def test_text_that_was_read_in_another_encoding_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = write(tmp_path / "i.csv", f"id,title\na,{'Léon'.encode().decode('latin-1')}\nb,SÃO\n")
    with caplog.at_level(logging.WARNING):
        prepare(table(tmp_path, "user_id,item_id\nu,a\nu,b\n", items=items))
    assert "1 of 2 items have a title such as 'LÃ©on'" in caplog.text


# --- blow-ups


def write_amazon(folder: Path, reviews: str, meta: str = '{"asin":"a","title":"A"}\n') -> Amazon:
    write(folder / "x.json", reviews)
    write(folder / "meta_x.json", meta)
    return Amazon(**where(folder), input=folder)


REVIEWS = [{"reviewerID": "u", "asin": "a", "unixReviewTime": at, "overall": 5, "text": '}],[{"\n'} for at in range(9)]


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    first = json.dumps(REVIEWS[0])
    deep = first[:-1] + ',"x":' + "[" * 20_000 + "]" * 20_000 + "}\n"
    with pytest.raises(UserError, match=r"x\.json, line 1: brackets are nested deeper than 100"):
        prepare(write_amazon(tmp_path, deep))
    with pytest.raises(UserError, match=r"meta_x\.json, line 2: brackets are nested deeper than 100"):
        prepare(write_amazon(tmp_path, first, '{"asin":"a","title":"A"}\n' + deep))
    with pytest.raises(UserError, match=r"x\.json, object 2: brackets are nested deeper than 100"):
        prepare(write_amazon(tmp_path, f"[{first},{deep}]"))
    brackets = {**REVIEWS[0], "text": "[" * 500}  # in a text they nest nothing
    assert read(write_amazon(tmp_path, json.dumps(brackets) + "\n")) == {"u": ["a"]}


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_reviews_is_read_as_lines_are(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(REVIEWS, indent=indent) + "\n")
    for size in (1, 100, 1 << 20):
        chunks = list(json_text.object_chunks(path, size))
        rows = [json.loads(line) for _, chunk in chunks for line in chunk.splitlines()]
        assert rows == REVIEWS
        before = [0, *np.cumsum([chunk.count(b"\n") for _, chunk in chunks])]
        assert [first for first, _ in chunks] == [count + 1 for count in before[:-1]]
        assert len(chunks) == {1: 9, 1 << 20: 1}.get(size, len(chunks))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is empty"),
        ("[1]", "object 1: expected a JSON object, got '1]'"),
        ('[{"a": 1} {"a": 2}]', "object 1: expected a comma or ] after it"),
        ('[{"a": 1},', "object 2: expected a JSON object, got ''"),
        ('[{"a": 1}', "object 1: expected a comma or ] after it, got ''"),
        ('[{"a": ', "object 1: not JSON"),
        ('[{"a": 1}] x', "goes on after its array: 'x'"),
        ('[{"a": %s}]' % ("9" * 5000), "object 1: Exceeds the limit"),
        (b'[{"a": "\xff"}]', r"not UTF-8 \(byte 0xff\)"),
    ],
)
def test_faulty_arrays(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=message):
        json_text.scan_objects(path, {"a": pl.Int64}, tmp_path).collect()


def test_lines_and_expansion_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1 << 20)
    path = write(tmp_path / "s.txt", gzip.compress(b"u a\nv " + b"x" * (20 << 20)))
    with pytest.raises(UserError, match=r"s\.txt, line 2: longer than 1 MiB, begins with b'v xxx"):
        prepare(Sequences(**where(tmp_path), input=path))
    monkeypatch.setattr(reading, "FREE_EXPANSION", 1 << 20)
    write(path, gzip.compress(b"u a\n" * (2 << 20)))
    with pytest.raises(UserError, match=r"s\.txt: its [\d,]+ bytes unpack to more than .* over 200 times"):
        prepare(Sequences(**where(tmp_path), input=path))
    monkeypatch.setattr(reading, "MAX_WHOLE_BYTES", 100)
    with pytest.raises(UserError, match="of one JSON value"):
        json_text.read_json(write(tmp_path / "j.json", "1" * 200), "--items")


@pytest.mark.parametrize("size", [1, 3, 10])
def test_lines_come_whole_whatever_the_pieces(tmp_path: Path, size: int) -> None:
    content = b"ab\n\nc\r\nd\x85e\rf\nlast"
    path = write(tmp_path / "l.txt", content)
    chunks = list(reading.line_chunks(path, size))
    assert b"".join(chunk for _, chunk in chunks) == content
    assert all(chunk.endswith(b"\n") for _, chunk in chunks[:-1])
    assert [first for first, _ in chunks] == [
        1 + sum(c.count(b"\n") for _, c in chunks[:at]) for at in range(len(chunks))
    ]
