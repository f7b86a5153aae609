"""Sources of JSON and pickles: the layout they read, and what they say about faulty files."""

import collections
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources.amazon import Amazon
from seqrec.data.sources.cold import Cold
from seqrec.data.sources.corpus import Corpus
from seqrec.data.sources.json_text import scan_objects
from seqrec.data.sources.pickled import Pickled
from seqrec.data.sources.reading import line_chunks
from seqrec.data.sources.recformer import JsonSplits
from seqrec.data.sources.sequences import Sequences
from seqrec.data.splits import leave_one_out


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
    users, items, table = read(JsonSplits(**where(tmp_path), input=tmp_path))
    assert users == {"ann": ["b", "a", "c", "d"], "bob": ["c", "d", "a"]}
    assert items == ["a", "b", "c", "d"]
    assert table.columns == ["item", "raw_id", "title", "brand", "category"]
    assert table["title"].to_list() == ["title a", "title b", "title c", "title d"]


def test_recformer_titles_as_strings_and_nan(tmp_path: Path) -> None:
    meta = {"a": "A", "b": "B", "c": float("nan"), "d": "D"}
    write_recformer(tmp_path, meta_data=meta)
    with pytest.raises(ValueError, match="1 of 4 items have no text in title, for example c"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))
    config = JsonSplits(**where(tmp_path), input=tmp_path, on_missing_text="item_id")
    assert read(config)[2]["title"].to_list() == ["A", "B", "c", "D"]


def test_recformer_split_by_user_needs_resplit(tmp_path: Path) -> None:
    held = {"1": [2, 3, 0]}
    write_recformer(tmp_path, train={"0": [1, 0, 2, 3]}, val=held, test=held)
    with pytest.raises(ValueError, match="user '1' is in val but not in train; add --resplit"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))
    users, _, _ = read(JsonSplits(**where(tmp_path), input=tmp_path, resplit=True))
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
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))


def test_recformer_faulty_json(tmp_path: Path) -> None:
    write_recformer(tmp_path)
    write(tmp_path / "smap.json", '{"a": 0,\n"b": }')
    with pytest.raises(ValueError, match=r"smap\.json, line 2: not JSON"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))
    write(tmp_path / "smap.json", '{"a": 0,\n"a": 1}')
    with pytest.raises(ValueError, match=r"smap\.json: the key 'a' occurs twice"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))
    (tmp_path / "smap.json").write_bytes(b'{"a": 0,\n\n"\xe9": 1}')
    with pytest.raises(ValueError, match=r"smap\.json, line 3: not UTF-8 \(byte 0xe9\)"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))
    (tmp_path / "smap.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"smap\.json is not a file \(in .*train\.json"):
        prepare(JsonSplits(**where(tmp_path), input=tmp_path))


@pytest.mark.parametrize("number", [str, int])
def test_recformer_pretraining_lists(tmp_path: Path, number: Any) -> None:
    meta = {str(k): {"title": f"t{k}", "brand": "b"} for k in range(5)}
    lists = [[number(3), number(1)], [number(3)], [], [number(4), number(4), number(1)]]
    for name, content in (("train", lists), ("meta_data", meta), ("odd", {"0": [1]})):
        write(tmp_path / f"{name}.json", json.dumps(content))
    users, items, table = read(JsonSplits(**where(tmp_path), input=tmp_path, sequences_file="train.json"))
    assert users == {"0": ["3", "1"], "1": ["3"], "3": ["4", "4", "1"]}
    assert items == ["3", "1", "4"]
    assert table["title"].to_list() == ["t3", "t1", "t4"]
    with pytest.raises(ValueError, match=r"odd.json: expected a list of lists of item keys, got dict"):
        read(JsonSplits(**where(tmp_path), input=tmp_path, sequences_file="odd.json"))


def domain(folder: Path, name: str, lines: list[str], items: str) -> None:
    """Prepare a small dataset from lines of users and items, and a CSV of items."""
    sequences = write(folder / f"{name}.txt", "\n".join(lines))
    prepare(
        Sequences(
            name=name, data_dir=folder / "data", input=sequences, items=write(folder / f"{name}.csv", f"id,{items}")
        )
    )


def corpus(folder: Path, *datasets: str, **options: Any) -> Corpus:
    return Corpus(name="x", data_dir=folder / "data", datasets=datasets, **options)


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    domain(tmp_path, "tools", ["u a b", "v b"], "title\na,saw\nb,axe\n")
    domain(tmp_path, "sports", ["u c a", "w c"], "title,brand\nc,ball,X\na,saw,\n")
    domain(tmp_path, "target", ["u b", "z q"], "title\nb,axe\nq,pen\n")
    return tmp_path


def test_a_corpus_joins_domains_and_keeps_their_users_apart(domains: Path) -> None:
    users, items, table = read(corpus(domains, "tools", "target"))
    assert users == {"u@tools": ["a", "b"], "v@tools": ["b"], "u@target": ["b"], "z@target": ["q"]}
    assert items == ["a", "b", "q"]
    assert table["title"].to_list() == ["saw", "axe", "pen"]


def test_two_people_of_a_corpus_never_have_one_name(domains: Path) -> None:
    domain(domains, "b", ["x@a a b"], "title\na,saw\nb,axe\n")
    domain(domains, "a@b", ["x b a"], "title\na,saw\nb,axe\n")
    with pytest.raises(ValueError, match=r"'x@a@b' would be two users of different domains.* --name without @"):
        read(corpus(domains, "b", "a@b"))


def test_a_corpus_has_the_attributes_of_all_domains(domains: Path) -> None:
    with pytest.raises(ValueError, match=r"item 'a' is .*saw.* in one domain and .* in another: --prefix_items"):
        domain(domains, "other", ["u a"], "title\na,drill\n")
        read(corpus(domains, "tools", "other"))
    users, _, table = read(corpus(domains, "tools", "sports", prefix_items=True))
    assert users["u@sports"] == ["sports/c", "sports/a"]
    assert table.columns == ["item", "raw_id", "title", "brand"]
    assert table.filter(pl.col("raw_id") == "sports/c")["brand"].to_list() == ["X"]


def test_a_corpus_shares_no_item_with_what_it_is_to_be_tested_on(
    domains: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"tools shares 1 items with target, such as 'b'.*--on_shared_items drop"):
        read(corpus(domains, "tools", disjoint_from=("target",)))
    with caplog.at_level("INFO"):
        users, items, _ = read(corpus(domains, "tools", disjoint_from=("target",), on_shared_items="drop"))
    assert "tools and target share 1 items by id, 0 more by title, and 1 users" in caplog.text
    assert (users, items) == ({"u@tools": ["a"]}, ["a"])
    with pytest.raises(ValueError, match="names one twice"):
        read(corpus(domains, "tools", "tools"))


def test_an_item_under_another_id_is_shared_too(domains: Path) -> None:
    domain(domains, "renamed", ["u x y"], "title\nx,The SAW.\ny,hammer\n")
    domain(domains, "titled", ["u a c"], "title\na,the saw\nc,pen\n")
    with pytest.raises(
        ValueError, match=r"renamed shares 1 items with titled, such as 'x', 'the saw' there and 'The SAW"
    ):
        read(corpus(domains, "renamed", disjoint_from=("titled",)))
    left = {"disjoint_from": ("titled",), "on_shared_items": "drop"}
    assert read(corpus(domains, "renamed", **left))[1] == ["y"]
    assert read(corpus(domains, "renamed", **left, near_titles=0, overwrite=True))[1] == ["x", "y"]


def test_cold_items_are_left_to_the_test(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = [8] * 40 + [3] * 40
    lines = [f"u{u} " + " ".join(f"i{i}" for i in generator.integers(0, 50, n)) for u, n in enumerate(sizes)]
    domain(tmp_path, "warm", lines, "title\n" + "".join(f"i{i},title {i}\n" for i in range(50)))
    where: dict[str, Any] = {"data_dir": tmp_path / "data", "dataset": "warm", "share": 0.3}
    found, left, table = read(Cold(name="x", **where))
    again, _, _ = read(Cold(name="y", **where))
    assert found == again
    dataset = load_dataset(tmp_path / "data/x")
    split = leave_one_out(dataset)
    trained = np.flatnonzero(split.train.item_counts(dataset.num_items))
    whole = {line.split()[0]: line.split()[1:] for line in lines}
    lasts = {row[-1] for row in whole.values()}
    cold = {name for number, name in enumerate(left, 1) if number not in trained} | ({*lasts} - set(left))
    assert cold <= lasts
    assert len(cold) == round(0.3 * len(lasts))
    for user, row in whole.items():
        warm = [item for item in row[:-1] if item not in cold]
        keeps_last = row[-1] not in cold or len(warm) >= 2
        assert found.get(user, []) == warm + row[-1:] * keeps_last
    tested = {left[target - 1] for target in split.test.targets}
    assert len(tested & cold) > 3
    assert set(table["title"]) == {f"title {name[1:]}" for name in left}
    with pytest.raises(ValueError, match=r"--share must lie in \(0, 1\), got 1"):
        Cold(name="x", dataset="warm", share=1)


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
    frame = scan_objects(path, {"a": pl.String}, tmp_path, chunk_bytes).collect()
    assert frame["a"].to_list() == [f"v{place}" * (place % 5) for place in range(20)]
    assert frame["_line"].to_list() == list(range(1, 21))
