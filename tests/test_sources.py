"""Every source: the layout it reads, and what it says about faulty files."""

import collections
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.dataset import ROOT, load_dataset
from seqrec.preparation import Preparation, prepare
from seqrec.sources.amazon import Amazon
from seqrec.sources.atomic import Atomic
from seqrec.sources.movielens import MovieLens
from seqrec.sources.pickled import Pickled
from seqrec.sources.reading import line_chunks, scan_json_lines
from seqrec.sources.recformer import Recformer
from seqrec.sources.sequences import Sequences
from seqrec.sources.table import Table

REAL = ROOT.parent / "shared" / "data"


def where(folder: Path) -> dict[str, Any]:
    return {"name": "x", "data_dir": folder / "data"}


def read(config: Preparation) -> tuple[dict[str, list[str]], list[str], pl.DataFrame]:
    """Return each user's raw items, the raw items in order, and the item table."""
    folder = prepare(config)
    dataset = load_dataset(folder)
    names = dataset.item_table()["raw_id"].to_list()
    users = pl.read_parquet(folder / "users.parquet")["raw_id"]
    rows = np.split(dataset.items, dataset.offsets[1:-1])
    return {u: [["", *names][i] for i in row] for u, row in zip(users, rows, strict=True)}, names, dataset.item_table()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- atomic


def write_unisrec(folder: Path) -> None:
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    write(folder / "S.train.inter", head + "0\t0 1\t2\n0\t0\t1\n1\t3\t0\n")
    write(folder / "S.valid.inter", head + "0\t0 1 2\t3\n1\t3 0\t1\n")
    write(folder / "S.test.inter", head + "0\t0 1 2 3\t1\n1\t3 0 1\t2\n")
    write(folder / "S.item2index", "B3\t3\nB0\t0\nB1\t1\nB2\t2\n")
    write(folder / "S.text", 'item_id:token\ttext:token_seq\nB0\tzero\nB2\ttwo "inch\nB1\tone\nB3\tthree\n')


def test_atomic_histories_of_the_test_file_with_item2index(tmp_path: Path) -> None:
    write_unisrec(tmp_path)
    users, items, table = read(Atomic(**where(tmp_path), input=tmp_path))
    assert users == {"0": ["B0", "B1", "B2", "B3", "B1"], "1": ["B3", "B0", "B1", "B2"]}
    assert items == ["B0", "B1", "B2", "B3"]  # in the order of their indices
    assert table["title"].to_list() == ["zero", "one", 'two "inch', "three"]


def test_atomic_user2index_gives_raw_users(tmp_path: Path) -> None:
    write_unisrec(tmp_path)
    write(tmp_path / "S.user2index", "ann\t0\nbob\t1\n")
    assert list(read(Atomic(**where(tmp_path), input=tmp_path))[0]) == ["ann", "bob"]


def test_atomic_rows_that_contradict_the_longest_are_named(tmp_path: Path) -> None:
    write_unisrec(tmp_path)
    path = tmp_path / "S.train.inter"
    path.write_text(path.read_text().replace("1\t3\t0", "1\t2\t0"))
    with pytest.raises(ValueError, match=r"S\.train\.inter, line 4: user '1' has '2 0', which is no beginning"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_atomic_histories_cut_at_a_length_may_have_moved(tmp_path: Path) -> None:
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    write(tmp_path / "S.train.inter", head + "a\t0\t1\na\t0 1\t2\n")
    write(tmp_path / "S.valid.inter", head + "a\t1 2\t3\nb\t0\t1\n")
    write(tmp_path / "S.test.inter", head + "a\t2 3\t4\nb\t0 1\t2\n")
    users, _, _ = read(Atomic(**where(tmp_path), input=tmp_path))
    assert users == {"a": ["2", "3", "4"], "b": ["0", "1", "2"]}


def test_atomic_index_out_of_range(tmp_path: Path) -> None:
    write_unisrec(tmp_path)
    write(tmp_path / "S.item2index", "B0\t0\nB1\t1\nB2\t2\n")
    with pytest.raises(ValueError, match="item '3' of user '0' is out of range: the source numbers 3 items"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_atomic_numbered_item_file(tmp_path: Path) -> None:
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    write(tmp_path / "G.test.inter", head + "0\t2 1\t3\n")
    write(tmp_path / "G.item", "item_id:token\ttitle:token_seq\n0\tA\n1\tB\n2\tC\n3\tD\n")
    users, items, table = read(Atomic(**where(tmp_path), input=tmp_path))
    assert users == {"0": ["2", "1", "3"]}
    assert items == ["1", "2", "3"]  # its own order; item 0 was never bought
    assert table["title"].to_list() == ["B", "C", "D"]


def test_atomic_rating_rows_with_u_item(tmp_path: Path) -> None:
    rows = "7\t20\t4\t30\n7\t10\t2\t20\n8\t10\t5\t881250949.0\n"
    write(tmp_path / "m.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)
    flags = "|".join(["0", "1", "0", "0", "0", "1"] + ["0"] * 13)
    text = f"10|Caf\u00e9 (1995)|01-Jan-1995||http|{flags}\n20|B (1996)|x||y|{flags}\n"
    (tmp_path / "u.item").write_text(text, encoding="latin-1")
    users, _, table = read(Atomic(**where(tmp_path), input=tmp_path, items=tmp_path / "u.item"))
    assert users == {"7": ["10", "20"], "8": ["10"]}
    assert table.rows() == [(1, "20", "B (1996)", "Action Comedy"), (2, "10", "Caf\u00e9 (1995)", "Action Comedy")]


def test_atomic_missing_column_names_the_existing(tmp_path: Path) -> None:
    write(tmp_path / "m.inter", "user_id:token\tmovie:token\n1\t2\n")
    with pytest.raises(ValueError, match=r"m\.inter has no column 'item_id'; it has 'user_id', 'movie'"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_atomic_bad_rows_name_the_line(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    write(tmp_path / "m.inter", head + "1\t2\t3\n1\t\t4\n")
    with pytest.raises(ValueError, match=r"m\.inter, line 3: no valid item"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    write(tmp_path / "m.inter", head + "1\t2\t3\n1\t2\tsoon\n")
    with pytest.raises(ValueError, match=r"m\.inter, line 3: no valid timestamp in .*'soon'"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    write(tmp_path / "m.inter", head + "1\t2\t3\n1\t2\t3\t4\n")
    with pytest.raises(ValueError, match=r"m\.inter, line 3: 4 fields, the first line has 3"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    (tmp_path / "m.inter").write_bytes(head.encode() + b"1\t2\t3\n1\t\xff\t4\n")
    with pytest.raises(ValueError, match=r"m\.inter, line 3: not UTF-8 \(byte 0xff\)"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    write(tmp_path / "m.inter", "")
    with pytest.raises(ValueError, match=r"m\.inter is empty"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_atomic_duplicate_item_ids_name_both_lines(tmp_path: Path) -> None:
    write_unisrec(tmp_path)
    with (tmp_path / "S.text").open("a") as file:
        file.write("B2\tagain\n")
    with pytest.raises(ValueError, match=r"S\.text, lines 3 and 6: item id 'B2' occurs twice"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))


def test_atomic_without_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.inter file"):
        prepare(Atomic(**where(tmp_path), input=tmp_path))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        prepare(Atomic(**where(tmp_path), input=tmp_path / "nowhere"))


# --- recformer and pickle


def write_recformer(folder: Path, base: int = 0, **changes: Any) -> dict[str, Any]:
    smap = {key: base + place for place, key in enumerate("abcd")}
    content = {
        "train": {"0": [base + 1, base], "1": [base + 2]},
        "val": {"0": [base + 2], "1": [base + 3]},
        "test": {"0": [base + 3], "1": [base]},
        "smap": smap,
        "umap": {"ann": 0, "bob": 1},
        "meta_data": {
            key: {"title": f"title {key}", "brand": "", "category": f"kind {key}"} for key in [*"dcba", "unsold"]
        },
        **changes,
    }
    for name, value in content.items():
        write(folder / f"{name}.json", json.dumps(value))
    return content


@pytest.mark.parametrize("base", [0, 1])
def test_recformer_keeps_the_split_for_either_base(tmp_path: Path, base: int) -> None:
    write_recformer(tmp_path, base)
    users, items, table = read(Recformer(**where(tmp_path), input=tmp_path))
    assert users == {"ann": ["b", "a", "c", "d"], "bob": ["c", "d", "a"]}
    assert items == ["a", "b", "c", "d"]
    assert table.columns == ["item", "raw_id", "title", "brand", "category"]
    assert table["title"].to_list() == ["title a", "title b", "title c", "title d"]


def test_recformer_titles_as_strings_and_nan(tmp_path: Path) -> None:
    meta = {"a": "A", "b": "B", "c": float("nan"), "d": "D"}
    write_recformer(tmp_path, meta_data=meta)
    with pytest.raises(ValueError, match="1 of 4 items have no text in title, for example c"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))
    config = Recformer(**where(tmp_path), input=tmp_path, on_missing_text="item_id")
    assert read(config)[2]["title"].to_list() == ["A", "B", "c", "D"]


def test_recformer_split_by_user_needs_resplit(tmp_path: Path) -> None:
    held = {"1": [2, 3, 0]}
    write_recformer(tmp_path, train={"0": [1, 0, 2, 3]}, val=held, test=held)
    with pytest.raises(ValueError, match="user '1' is in val but not in train; add --resplit"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))
    users, _, _ = read(Recformer(**where(tmp_path), input=tmp_path, resplit=True))
    assert users == {"ann": ["b", "a", "c", "d"], "bob": ["c", "d", "a"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": {"0": [2, 1], "1": [3]}}, "val has 2 items of user '0', expected 1; add --resplit"),
        ({"val": {"0": [2]}}, "user '1' is in only one of val and test; add --resplit"),
        ({"val": {}, "test": {}, "train": {"0": [0, 1, 2]}}, "user '0' has 3 items in train, none in val"),
        ({"train": {"0": [7, 0], "1": [2]}}, r"train\.json: item 7 of user 0 is out of range: smap numbers 0\.\.3"),
        ({"train": {"0": ["b"], "1": [2]}}, "expected lists of whole numbers, got 'b' for user '0'"),
        ({"train": [[1, 2]], "val": {}, "test": {}}, r"train\.json: expected an object that maps each key to its list"),
        ({"smap": {"a": 0, "b": 2}}, r"without gap or repeat, its ids are 0\.\.2"),
        ({"smap": {"a": 5, "b": 6}}, r"from 0 or 1 without gap or repeat, its ids are 5\.\.6"),
        ({"smap": {"a": "0"}}, "smap: expected an object that maps each key to its int"),
        ({"meta_data": {"a": [1]}}, "item 'a' must have a title or an object of attributes"),
    ],
)
def test_recformer_faults(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_recformer(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        prepare(Recformer(**where(tmp_path), input=tmp_path))


def test_recformer_faulty_json(tmp_path: Path) -> None:
    write_recformer(tmp_path)
    write(tmp_path / "smap.json", '{"a": 0,\n"b": }')
    with pytest.raises(ValueError, match=r"smap\.json, line 2: not JSON"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))
    write(tmp_path / "smap.json", '{"a": 0,\n"a": 1}')
    with pytest.raises(ValueError, match=r"smap\.json: the key 'a' occurs twice"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))
    (tmp_path / "smap.json").write_bytes(b'{"a": 0,\n\n"\xe9": 1}')
    with pytest.raises(ValueError, match=r"smap\.json, line 3: not UTF-8 \(byte 0xe9\)"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))
    (tmp_path / "smap.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"smap\.json is not a file \(in .*train\.json"):
        prepare(Recformer(**where(tmp_path), input=tmp_path))


def write_pickle(folder: Path, content: Any) -> Path:
    path = folder / "dataset.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def test_pickle_with_and_without_text(tmp_path: Path) -> None:
    content = write_recformer(tmp_path, 1)
    parts: dict[str, Any] = {name: {int(u): v for u, v in content[name].items()} for name in ("train", "val", "test")}
    path = write_pickle(tmp_path, {**parts, "smap": content["smap"]})
    users, items, table = read(Pickled(**where(tmp_path), input=path))
    assert users == {"0": ["b", "a", "c", "d"], "1": ["c", "d", "a"]}
    assert items == ["a", "b", "c", "d"]
    assert table.columns == ["item", "raw_id"]
    config = Pickled(**where(tmp_path), input=path, items=tmp_path / "meta_data.json", overwrite=True)
    assert read(config)[2]["category"].to_list() == ["kind a", "kind b", "kind c", "kind d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (collections.OrderedDict(), r"it holds collections\.OrderedDict"),
        ({"train": np.arange(3)}, r"it holds numpy"),
        ({"train": {1: (1, 2)}}, "it holds tuple"),
        ({"train": {1: [1.5]}}, "it holds float"),
        ({"train": {1: None}}, "it holds NoneType"),
        (print, r"it holds builtins\.print"),
        ({"train": {}}, r"expected a dict with the dicts train, val, test, smap; it holds \['train'\]"),
    ],
)
def test_pickle_admits_plain_types_only(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(Pickled(**where(tmp_path), input=write_pickle(tmp_path, content)))


def test_pickle_runs_no_code_and_names_damage(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    attack = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    (tmp_path / "dataset.pkl").write_bytes(attack)
    with pytest.raises(ValueError, match=r"it holds (os|posix)\.system"):
        prepare(Pickled(**where(tmp_path), input=tmp_path / "dataset.pkl"))
    assert not mark.exists()
    (tmp_path / "dataset.pkl").write_bytes(pickle.dumps({"train": {1: [2]}})[:-6])
    with pytest.raises(ValueError, match=r"dataset\.pkl can't be read as a pickle"):
        prepare(Pickled(**where(tmp_path), input=tmp_path / "dataset.pkl"))


# --- amazon

REVIEWS: list[dict[str, Any]] = [
    {"reviewerID": "U1", "asin": "A1", "unixReviewTime": 30, "overall": 5.0, "reviewText": "x"},
    {"reviewerID": "U1", "asin": "A2", "unixReviewTime": 10, "overall": 3.0},
    {"reviewerID": "U2", "asin": "A1", "unixReviewTime": 20, "overall": 4},
]
META: list[dict[str, Any]] = [
    {"asin": "A1", "title": "Tea &amp; cake", "brand": "Lim", "category": ["Food", "Tea"], "description": ["a", "b"]},
    {"asin": "A2", "title": "<span>Cup</span>", "category": []},
    {"asin": "A9", "title": "unsold", "brand": "x", "category": []},
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_amazon_2018(tmp_path: Path) -> None:
    write_lines(tmp_path / "Food_5.json.gz", REVIEWS)
    write_lines(tmp_path / "meta_Food.json.gz", META)
    users, items, table = read(Amazon(**where(tmp_path), input=tmp_path))
    assert users == {"U1": ["A2", "A1"], "U2": ["A1"]}
    assert items == ["A1", "A2"]
    assert table.rows() == [(1, "A1", "Tea & cake", "Lim", "Food Tea"), (2, "A2", "Cup", "", "")]
    config = Amazon(**where(tmp_path), input=tmp_path, attributes="title,description", overwrite=True)
    assert read(config)[2].row(0) == (1, "A1", "Tea & cake", "a b")


def test_amazon_2023(tmp_path: Path) -> None:
    names = {"reviewerID": "user_id", "asin": "parent_asin", "overall": "rating", "unixReviewTime": "timestamp"}
    rows = [{names.get(key, key): value for key, value in row.items()} | {"asin": "other"} for row in REVIEWS]
    rows = [row | {"timestamp": row["timestamp"] * 1000 + 999} for row in rows]
    reviews = write_lines(tmp_path / "r.jsonl", rows)
    meta_rows = [{"parent_asin": "A1", "title": "Tea", "store": "Lim", "categories": ["Food", "Tea"], "price": None}]
    meta = write_lines(tmp_path / "m.jsonl", [*meta_rows, {"parent_asin": "A2", "title": "Cup", "store": None}])
    config = Amazon(**where(tmp_path), reviews=reviews, meta=meta)
    users, _, table = read(config)
    assert users == {"U1": ["A2", "A1"], "U2": ["A1"]}
    assert table.rows() == [(1, "A1", "Tea", "Lim", "Food Tea"), (2, "A2", "Cup", "", "")]
    assert np.load(tmp_path / "data" / "x" / "sequences" / "timestamps.npy").tolist() == [10, 30, 20]


def test_amazon_repeated_metadata(tmp_path: Path) -> None:
    write_lines(tmp_path / "Food_5.json", REVIEWS)
    write_lines(tmp_path / "meta_Food.json", [*META, {"asin": "A1", "title": "Coffee"}])
    assert read(Amazon(**where(tmp_path), input=tmp_path))[2]["title"][0] == "Coffee"
    with pytest.raises(ValueError, match=r"meta_Food\.json, lines 1 and 4: item id 'A1' occurs twice"):
        prepare(Amazon(**where(tmp_path), input=tmp_path, duplicate_items="error"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"reviewerID": "U1", "asin": \n', "line 4: not JSON: Expecting value"),
        (b'{"reviewerID": "U\xff"}\n', r"line 4: not UTF-8 \(byte 0xff\)"),
        (b"[1, 2]\n", "line 4: expected a JSON object"),
        (b'{"reviewerID": "U1", "asin": "A", "unixReviewTime": "soon"}\n', "line 4: a field has another type.*soon"),
        (b'{"reviewerID": "U1", "unixReviewTime": 3, "overall": 1}\n', "line 4: no valid item"),
        (b'{"reviewerID": "U1", "asin": "A1", "overall": 1}\n', "line 4: no valid timestamp"),
    ],
)
def test_amazon_faulty_lines(tmp_path: Path, line: bytes, message: str) -> None:
    write_lines(tmp_path / "meta_Food.json", META)
    good = write_lines(tmp_path / "Food_5.json", REVIEWS).read_bytes()
    (tmp_path / "Food_5.json").write_bytes(good + line + good)
    with pytest.raises(ValueError, match=r"Food_5\.json, " + message):
        prepare(Amazon(**where(tmp_path), input=tmp_path))


def test_amazon_broken_gzip_and_foreign_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "meta_Food.json", META)
    whole = write_lines(tmp_path / "Food_5.json.gz", REVIEWS * 500).read_bytes()
    (tmp_path / "Food_5.json.gz").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(
        ValueError, match=r"Food_5\.json\.gz: the gzip stream breaks off or is damaged after line [\d,]+ .*"
    ):
        prepare(Amazon(**where(tmp_path), input=tmp_path))
    write_lines(tmp_path / "Food_5.json.gz", [{"who": 1, "what": 2}])
    with pytest.raises(
        ValueError, match=r"line 1: expected the fields .*reviewerID.*user_id.*it has \['who', 'what'\]"
    ):
        prepare(Amazon(**where(tmp_path), input=tmp_path))
    (tmp_path / "Food_5.json.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"--reviews: .* must hold exactly one \*\.json\*"):
        prepare(Amazon(**where(tmp_path), input=tmp_path))
    with pytest.raises(ValueError, match="give --input FOLDER, or both"):
        Amazon(**where(tmp_path), reviews=tmp_path / "x")


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 10_000])
def test_json_lines_are_the_same_for_any_chunk(tmp_path: Path, chunk_bytes: int) -> None:
    path = write_lines(tmp_path / "rows.json.gz", [{"a": f"v{place}" * (place % 5)} for place in range(20)])
    assert b"".join(chunk for _, chunk in line_chunks(path, chunk_bytes)) == gzip.decompress(path.read_bytes())
    frame = scan_json_lines(path, {"a": pl.String}, tmp_path, chunk_bytes).collect()
    assert frame["a"].to_list() == [f"v{place}" * (place % 5) for place in range(20)]
    assert frame["line"].to_list() == list(range(1, 21))


# --- movielens, sequences, table


def test_movielens_dat_and_csv_agree(tmp_path: Path) -> None:
    dat, csv = tmp_path / "dat", tmp_path / "csv"
    dat.mkdir()
    csv.mkdir()
    write(dat / "ratings.dat", "1::20::5::300\n1::10::4::200\n2::10::3::100\n")
    movies = "10::Caf\u00e9: a film (1995)::Drama|War\n20::B (1996)::Comedy\n"
    (dat / "movies.dat").write_text(movies, encoding="latin-1")
    write(csv / "ratings.csv", "userId,movieId,rating,timestamp\n1,20,5.0,300\n1,10,4.0,200\n2,10,3.0,100\n")
    rows = 'movieId,title,genres\n10,"Caf\u00e9: a film (1995)",Drama|War\n20,B (1996),Comedy\n'
    write(csv / "movies.csv", rows)
    for place, folder in enumerate((dat, csv)):
        config = MovieLens(name=f"m{place}", data_dir=tmp_path / "data", input=folder, min_rating=4)
        users, _, table = read(config)
        assert users == {"1": ["10", "20"]}
        expected = [(1, "20", "B (1996)", "Comedy"), (2, "10", "Caf\u00e9: a film (1995)", "Drama War")]
        assert table.rows() == expected


def test_movielens_faults(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither ratings\.dat nor ratings\.csv"):
        prepare(MovieLens(**where(tmp_path), input=tmp_path))
    write(tmp_path / "ratings.dat", "1::20::5::300\n1::10\n")
    write(tmp_path / "movies.dat", "10::A::Drama\n20\n")
    with pytest.raises(ValueError, match=r"ratings\.dat, line 2: no valid timestamp"):
        prepare(MovieLens(**where(tmp_path), input=tmp_path))
    write(tmp_path / "ratings.dat", "1::20::5::300\n")
    with pytest.raises(ValueError, match=r"movies\.dat, line 2: expected id::title::genres, got '20'"):
        prepare(MovieLens(**where(tmp_path), input=tmp_path))


def test_sequences_with_blanks_tabs_and_several_lines_of_a_user(tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", "u\ti2 i1\n\nv i1\r\nu  i3\n")
    items = write(tmp_path / "i.csv", 'id,title\ni1,"One, two\nthree"\ni3,Three\ni2,Two\n')
    users, names, table = read(Sequences(**where(tmp_path), input=path, items=items))
    assert users == {"u": ["i2", "i1", "i3"], "v": ["i1"]}
    assert names == ["i2", "i1", "i3"]
    assert table["title"].to_list() == ["Two", "One, two three", "Three"]
    write(path, "u i1\n\nv\n")
    with pytest.raises(ValueError, match=r"s\.txt, line 3: expected `user item item \.\.\.`, got \['v'\]"):
        prepare(Sequences(**where(tmp_path), input=path))
    path.write_bytes(b"u i1\nv \xff\n")
    with pytest.raises(ValueError, match=r"s\.txt, line 2: not UTF-8"):
        prepare(Sequences(**where(tmp_path), input=path))
    write(items, "title\nOne\n")
    write(path, "u i1\n")
    with pytest.raises(ValueError, match="expected an id column and at least one of text, it has title"):
        prepare(Sequences(**where(tmp_path), input=path, items=items))


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "csv.gz"])
def test_table_formats_agree(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"who": ["b", "a", "b"], "what": [2, 1, 1], "when": [3000, 1000, 2999]})
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if ending == "tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    columns = {"user_column": "who", "item_column": "what", "timestamp_column": "when"}
    users, items, _ = read(Table(**where(tmp_path), input=path, time_unit="ms", **columns))  # type: ignore[arg-type]
    assert users == {"b": ["1", "2"], "a": ["1"]}
    assert items == ["2", "1"]
    assert np.load(tmp_path / "data" / "x" / "sequences" / "timestamps.npy").tolist() == [2, 3, 1]


def test_table_dates(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user_id,item_id,when\na,x,1970-01-02 00:00:01\na,y,1970-01-01 00:00:05\n")
    prepare(Table(**where(tmp_path), input=path, timestamp_column="when", time_unit="iso"))
    assert np.load(tmp_path / "data" / "x" / "sequences" / "timestamps.npy").tolist() == [5, 86401]
    pl.read_csv(path, try_parse_dates=True).write_parquet(tmp_path / "t.parquet")
    config = Table(name="y", data_dir=tmp_path / "data", input=tmp_path / "t.parquet", timestamp_column="when")
    prepare(config)
    assert np.load(tmp_path / "data" / "y" / "sequences" / "timestamps.npy").tolist() == [5, 86401]


def test_table_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user,item\na,x\n")
    with pytest.raises(ValueError, match=r"t\.csv has no column 'user_id', 'item_id'; it has 'user', 'item'"):
        prepare(Table(**where(tmp_path), input=path))
    with pytest.raises(
        ValueError, match=r"expected \.csv, \.tsv, \.txt \(tabs\) or \.parquet, perhaps \.gz, got '\.xls'"
    ):
        prepare(Table(**where(tmp_path), input=write(tmp_path / "t.xls", "")))
    with pytest.raises(FileNotFoundError, match=r"--input: .*none\.csv is not a file \(in "):
        prepare(Table(**where(tmp_path), input=tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="holds no interactions"):
        prepare(Table(**where(tmp_path), input=write(tmp_path / "e.csv", "user_id,item_id\n")))
    items = write(tmp_path / "i.csv", "id,title\nx,One\nx,Two\n")
    config = Table(**where(tmp_path), input=path, items=items, user_column="user", item_column="item")
    with pytest.raises(ValueError, match=r"i\.csv, lines 2 and 3: item id 'x' occurs twice"):
        prepare(config)


# --- real files, where they are at hand


def real(name: str) -> Path:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: real data is not part of the project")
    return folder


def test_real_counts(tmp_path: Path) -> None:
    folder = real("amazon-scientific").parent
    lines = folder / "ml-1m" / "ml-1m_user_sequences.txt"
    split, raw = folder / "recformer-tools", folder / "amazon-giftcards-raw"
    ml = folder / "ml-100k"
    configs: dict[tuple[int, int, int], Preparation] = {
        (8_442, 4_385, 59_384): Atomic(**where(tmp_path), input=folder / "amazon-scientific", overwrite=True),
        (50_546, 16_859, 440_264): Atomic(**where(tmp_path), input=folder / "amazon-games", overwrite=True),
        (943, 1_682, 100_000): Atomic(**where(tmp_path), input=ml, items=ml / "u.item", overwrite=True),
        (6_040, 3_416, 999_611): Sequences(
            **where(tmp_path), input=lines, items=lines.with_name("movies.dat"), overwrite=True
        ),
        (22_363, 12_101, 198_502): Sequences(**where(tmp_path), input=folder / "s3rec" / "Beauty.txt", overwrite=True),
        (10_962, 5_820, 66_164): Recformer(**where(tmp_path), input=split, resplit=True, overwrite=True),
        (458, 148, 2_972): Amazon(**where(tmp_path), input=raw, overwrite=True),
    }
    for expected, config in configs.items():
        dataset = load_dataset(prepare(config))
        assert (dataset.num_users, dataset.num_items, len(dataset.items)) == expected
