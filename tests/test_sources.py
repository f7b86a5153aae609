"""Sources of tables and lines: the layout they read, and what they say about faulty files."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.basics.paths import ROOT
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources.amazon import Amazon
from seqrec.data.sources.atomic import Atomic
from seqrec.data.sources.movielens import MovieLens
from seqrec.data.sources.recformer import JsonSplits
from seqrec.data.sources.sequences import Sequences
from seqrec.data.sources.table import TableFile

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
    with pytest.raises(ValueError, match=r"item '3' of user '0' is out of range: S\.item2index numbers 3 items"):
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
    with pytest.raises(ValueError, match=r"movies\.dat, line 2: expected id::title::genres, got \['20'\]"):
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
    users, items, _ = read(TableFile(**where(tmp_path), input=path, time_unit="ms", **columns))  # type: ignore[arg-type]
    assert users == {"b": ["1", "2"], "a": ["1"]}
    assert items == ["2", "1"]
    assert np.load(tmp_path / "data" / "x" / "sequences" / "timestamps.npy").tolist() == [2, 3, 1]


def test_table_dates(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user_id,item_id,when\na,x,1970-01-02 00:00:01\na,y,1970-01-01 00:00:05\n")
    prepare(TableFile(**where(tmp_path), input=path, timestamp_column="when", time_unit="iso"))
    assert np.load(tmp_path / "data" / "x" / "sequences" / "timestamps.npy").tolist() == [5, 86401]
    pl.read_csv(path, try_parse_dates=True).write_parquet(tmp_path / "t.parquet")
    config = TableFile(name="y", data_dir=tmp_path / "data", input=tmp_path / "t.parquet", timestamp_column="when")
    prepare(config)
    assert np.load(tmp_path / "data" / "y" / "sequences" / "timestamps.npy").tolist() == [5, 86401]


def test_table_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user,item\na,x\n")
    with pytest.raises(ValueError, match=r"t\.csv has no column 'user_id', 'item_id'; it has 'user', 'item'"):
        prepare(TableFile(**where(tmp_path), input=path))
    with pytest.raises(
        ValueError, match=r"expected \.csv, \.tsv, \.txt \(tabs\) or \.parquet, perhaps \.gz, got '\.xls'"
    ):
        prepare(TableFile(**where(tmp_path), input=write(tmp_path / "t.xls", "")))
    with pytest.raises(FileNotFoundError, match=r"--input: .*none\.csv is not a file \(in "):
        prepare(TableFile(**where(tmp_path), input=tmp_path / "none.csv"))
    wide = write(tmp_path / "w.csv", 'user_id,item_id\n"a, b",x\na,x,y\n')
    with pytest.raises(ValueError, match=r"w\.csv, line 3: 3 fields, the first line has 2"):
        prepare(TableFile(**where(tmp_path), input=wide))
    with pytest.raises(ValueError, match="holds no interactions"):
        prepare(TableFile(**where(tmp_path), input=write(tmp_path / "e.csv", "user_id,item_id\n")))
    items = write(tmp_path / "i.csv", "id,title\nx,One\nx,Two\n")
    config = TableFile(**where(tmp_path), input=path, items=items, user_column="user", item_column="item")
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
        (10_962, 5_820, 66_164): JsonSplits(**where(tmp_path), input=split, resplit=True, overwrite=True),
        (458, 148, 2_972): Amazon(**where(tmp_path), input=raw, overwrite=True),
    }
    for expected, config in configs.items():
        dataset = load_dataset(prepare(config))
        assert (dataset.num_users, dataset.num_items, len(dataset.items)) == expected
