"""The prepared dataset: order, numbering, filters, cleaning, writing, the card."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.card import describe
from seqrec.data.dataset import load_dataset
from seqrec.data.item_text import clean_text
from seqrec.data.preparation import Events, keep_core, prepare
from seqrec.data.sources.table import TableFile

ROWS = [  # user, item, time, rating
    ("ann", "tea", 30, 5),
    ("bob", "cup", 10, 4),
    ("ann", "cup", 20, 3),
    ("ann", "pot", 20, 2),
    ("bob", "tea", 40, 5),
    ("ann", "cup", 50, 1),
]


def write_csv(folder: Path, rows: list[tuple[str, str, int, int]] = ROWS) -> Path:
    path = folder / "events.csv"
    lines = ["user_id,item_id,time,stars", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_items(folder: Path, titles: dict[str, str]) -> Path:
    path = folder / "items.csv"
    path.write_text("id,title\n" + "".join(f'{key},"{title}"\n' for key, title in titles.items()))
    return path


def config(folder: Path, **options: object) -> TableFile:
    defaults = {
        "name": "shop",
        "data_dir": folder / "data",
        "input": folder / "events.csv",
        "timestamp_column": "time",
        "rating_column": "stars",
    }
    return TableFile(**{**defaults, **options})  # type: ignore[arg-type]


def sequences(path: Path) -> dict[str, list[str]]:
    dataset = load_dataset(path)
    users = pl.read_parquet(path / "users.parquet")["raw_id"]
    names = ["", *dataset.item_table()["raw_id"]]
    bounds = zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return {user: [names[i] for i in dataset.items[a:b]] for user, (a, b) in zip(users, bounds, strict=True)}


def hash_folder(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(path)).encode() + f.read_bytes() for f in files)).hexdigest()


def test_the_files_are_what_the_contract_says(tmp_path: Path) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path, items=write_items(tmp_path, {"pot": "Pot", "tea": "Tea", "cup": "Cup"})))
    assert folder == tmp_path / "data" / "shop"
    # By user, then time; cup and pot of ann share a time and keep the order of the source.
    assert sequences(folder) == {"ann": ["cup", "pot", "tea", "cup"], "bob": ["cup", "tea"]}
    items = pl.read_parquet(folder / "items.parquet")
    # Numbered by first appearance in the source, before ordering by time.
    assert items.rows() == [(1, "tea", "Tea"), (2, "cup", "Cup"), (3, "pot", "Pot")]
    assert items.schema == {"item": pl.Int32, "raw_id": pl.String, "title": pl.String}
    assert pl.read_parquet(folder / "users.parquet").rows() == [(0, "ann"), (1, "bob")]
    offsets, events, times = (np.load(folder / "sequences" / f"{n}.npy") for n in ("offsets", "items", "timestamps"))
    assert offsets.tolist() == [0, 4, 6]
    assert events.tolist() == [2, 3, 1, 2, 2, 1]
    assert times.tolist() == [20, 20, 30, 50, 10, 40]
    assert (offsets.dtype, events.dtype, times.dtype) == (np.int64, np.int32, np.int64)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert (manifest["num_users"], manifest["num_items"], manifest["num_interactions"]) == (2, 3, 6)
    assert manifest["attributes"] == ["title"]
    assert manifest["has_timestamps"] is True
    assert manifest["source"]["kind"] == "table"
    assert manifest["source"]["input"] == "events.csv"
    assert manifest["item_ids_sha256"] == hashlib.sha256(b"tea\ncup\npot").hexdigest()
    whole = offsets.tobytes() + events.tobytes() + times.tobytes()
    assert manifest["sequences_sha256"] == hashlib.sha256(whole).hexdigest()


def test_without_times_the_order_of_the_source_is_kept_and_no_times_are_written(tmp_path: Path) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path, timestamp_column=None))
    assert sequences(folder) == {"ann": ["tea", "cup", "pot", "cup"], "bob": ["cup", "tea"]}
    assert not (folder / "sequences" / "timestamps.npy").exists()
    assert load_dataset(folder).timestamps is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_rating": 3.0}, {"ann": ["cup", "tea"], "bob": ["cup", "tea"]}),
        ({"drop_exact_duplicates": True}, {"ann": ["cup", "pot", "tea", "cup"], "bob": ["cup", "tea"]}),
        ({"dedupe": True}, {"ann": ["cup", "pot", "tea"], "bob": ["cup", "tea"]}),
        ({"min_sc": 2}, {"ann": ["cup", "tea", "cup"], "bob": ["cup", "tea"]}),
        ({"min_uc": 3}, {"ann": ["cup", "pot", "tea", "cup"]}),
        # One pass only: without bob, tea and pot are left with one interaction each.
        ({"min_sc": 1, "min_uc": 3}, {"ann": ["cup", "pot", "tea", "cup"]}),
        ({"k_core": 2}, {"ann": ["cup", "tea", "cup"], "bob": ["cup", "tea"]}),
        ({"max_items_per_user": 2}, {"ann": ["tea", "cup"], "bob": ["cup", "tea"]}),
    ],
)
def test_each_filter(tmp_path: Path, options: dict[str, object], expected: dict[str, list[str]]) -> None:
    write_csv(tmp_path)
    assert sequences(prepare(config(tmp_path, **options))) == expected


def test_items_without_interactions_are_left_out_and_the_order_stays(tmp_path: Path) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path, min_sc=2))
    assert pl.read_parquet(folder / "items.parquet")["raw_id"].to_list() == ["tea", "cup"]


def test_sampled_users_are_the_same_for_a_seed_and_keep_their_order(tmp_path: Path) -> None:
    write_csv(tmp_path, [(f"u{number}", f"i{number % 3}", number, 5) for number in range(40)])
    first, second, other = (
        list(sequences(prepare(config(tmp_path, name=f"s{place}", sample_users=10, seed=seed))))
        for place, seed in enumerate((1, 1, 2))
    )
    assert first == second == sorted(first, key=lambda name: int(name[1:]))
    assert len(first) == 10
    assert first != other
    with pytest.raises(ValueError, match="--sample_users 41: only 40 users are left"):
        prepare(config(tmp_path, sample_users=41))


def test_an_empty_result_says_which_filter_took_how_much(tmp_path: Path) -> None:
    write_csv(tmp_path)
    with pytest.raises(ValueError, match=r"min_rating=3\.0 removed 2, k_core=3 removed 4"):
        prepare(config(tmp_path, min_rating=3.0, k_core=3))
    assert list((tmp_path / "data").iterdir()) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_core_equals_a_slow_one(pairs: list[tuple[int, int]], k: int) -> None:
    kept = list(pairs)
    while True:
        users, items = Counter(user for user, _ in kept), Counter(item for _, item in kept)
        rest = [(user, item) for user, item in kept if users[user] >= k and items[item] >= k]
        if len(rest) == len(kept):
            break
        kept = rest
    frame = pl.DataFrame(pairs, schema={"user": pl.UInt32, "item": pl.UInt32}, orient="row")
    events = Events(frame)
    if not kept:
        with pytest.raises(ValueError, match="no interaction is left"):
            keep_core(events, k)
        return
    keep_core(events, k)
    assert events.frame.rows() == kept


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 5)), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_order_and_numbers_equal_a_slow_reference(rows: list[tuple[str, str, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_csv(folder, [(user, item, time, 1) for user, item, time in rows])
        path = prepare(config(folder))
        users = list(dict.fromkeys(user for user, _, _ in rows))
        expected = {u: [i for _, i, t in sorted((r for r in rows if r[0] == u), key=lambda r: r[2])] for u in users}
        assert list(sequences(path).items()) == list(expected.items())
        items = list(dict.fromkeys(item for _, item, _ in rows))
        assert pl.read_parquet(path / "items.parquet").rows() == list(enumerate(items, start=1))


def test_the_same_input_gives_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    hashes = set()
    for place, threads in enumerate(("1", "2")):
        command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), "demo", "--num_users", "400"]
        command += ["--num_items", "300", "--data_dir", str(tmp_path / str(place))]
        run = subprocess.run(
            command, env={**os.environ, "POLARS_MAX_THREADS": threads}, cwd=tmp_path, check=True, capture_output=True
        )
        assert b"demo: 400 users" in run.stdout
        hashes.add(hash_folder(tmp_path / str(place) / "demo"))
    assert len(hashes) == 1


def test_the_command_tells_an_error_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), "table", "--input", "nowhere.csv", "--name", "x"]
    command += ["--data_dir", str(tmp_path / "data")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "nowhere.csv is not a file" in run.stderr
    assert "Traceback" not in run.stderr


def test_preparing_again_changes_nothing_and_other_bytes_need_overwrite(tmp_path: Path) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    prepare(config(tmp_path))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    with pytest.raises(UserError, match=r"differs in items\.parquet, manifest\.json.*--overwrite"):
        prepare(config(tmp_path, min_sc=2))
    assert load_dataset(folder).num_items == 3
    prepare(config(tmp_path, min_sc=2, overwrite=True))
    assert load_dataset(folder).num_items == 2
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["shop"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("seqrec.data.preparation.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare(config(tmp_path))
    assert list((tmp_path / "data").iterdir()) == []


def test_only_a_dataset_is_overwritten(tmp_path: Path) -> None:
    write_csv(tmp_path)
    letters, file, link = (tmp_path / "data" / name for name in ("letters", "file", "link"))
    letters.mkdir(parents=True)
    (letters / "manifest.json").write_text('{"name": "another program\'s"}')
    file.write_text("a letter")
    other = prepare(config(tmp_path, name="other"))
    link.symlink_to(other)
    before = sorted(path for path in tmp_path.rglob("*"))
    for name in ("letters", "file", "link"):
        with pytest.raises(UserError, match=f"{name} is no folder of a prepared dataset and is left alone"):
            prepare(config(tmp_path, name=name, overwrite=True, min_sc=2))
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert link.is_symlink()
    assert file.read_text() == "a letter"
    assert load_dataset(other).num_items == 3


def test_a_replacement_that_fails_leaves_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path))
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "dataset":
            raise PermissionError(13, "not now")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError):
        prepare(config(tmp_path, min_sc=2, overwrite=True))
    assert load_dataset(folder).num_items == 3
    assert list((tmp_path / "data").iterdir()) == [folder]


def test_what_a_kill_left_is_put_right(tmp_path: Path) -> None:
    write_csv(tmp_path)
    folder = prepare(config(tmp_path))
    folder.rename(folder.with_name(".shop.replaced"))  # between the two renames of a replacement
    (folder.with_name(".shop.preparing") / "scratch").mkdir(parents=True)
    with pytest.raises(UserError, match="shop exists and differs"):
        prepare(config(tmp_path, min_sc=2))
    assert load_dataset(folder).num_items == 3
    assert list((tmp_path / "data").iterdir()) == [folder]


@pytest.mark.parametrize("title", ["", "null", "NaN", "None", "  ", "<br>", "&nbsp;"])
def test_an_item_without_text_has_three_choices(tmp_path: Path, title: str) -> None:
    write_csv(tmp_path)
    items = write_items(tmp_path, {"tea": "Tea", "cup": title, "pot": "Pot"})
    message = "1 of 3 items have no text in title, for example cup.*drop.*item_id.*error"
    with pytest.raises(ValueError, match=message):
        prepare(config(tmp_path, items=items))
    dropped = prepare(config(tmp_path, items=items, on_missing_text="drop", name="dropped"))
    assert sequences(dropped) == {"ann": ["pot", "tea"], "bob": ["tea"]}
    named = prepare(config(tmp_path, items=items, on_missing_text="item_id", name="named"))
    assert pl.read_parquet(named / "items.parquet")["title"].to_list() == ["Tea", "cup", "Pot"]


def test_an_item_that_the_text_file_lacks_counts_as_without_text_only_if_it_is_kept(tmp_path: Path) -> None:
    write_csv(tmp_path)
    items = write_items(tmp_path, {"tea": "Tea", "cup": "Cup"})
    with pytest.raises(ValueError, match="for example pot"):
        prepare(config(tmp_path, items=items))
    assert load_dataset(prepare(config(tmp_path, items=items, min_sc=2))).num_items == 2


def test_attributes_are_chosen_in_order_and_unknown_ones_named(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "items.csv").write_text("id,title,brand,colour\ntea,Tea,Lim,red\ncup,Cup,,blue\npot,Pot,Dor,\n")
    folder = prepare(config(tmp_path, items=tmp_path / "items.csv", attributes="brand, title"))
    assert load_dataset(folder).attributes == ("brand", "title")
    assert pl.read_parquet(folder / "items.parquet")["brand"].to_list() == ["Lim", "", "Dor"]
    with pytest.raises(ValueError, match=r"no column 'size'; it has 'id', 'title', 'brand', 'colour'"):
        prepare(config(tmp_path, items=tmp_path / "items.csv", attributes="size"))
    with pytest.raises(ValueError, match="--attributes title: the source offers no text"):
        prepare(config(tmp_path, attributes="title"))
    with pytest.raises(ValueError, match="names one twice: title,title"):
        prepare(config(tmp_path, items=tmp_path / "items.csv", attributes="title,title"))


def test_options_that_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plain name .* got 'a/b'"):
        config(tmp_path, name="a/b")
    with pytest.raises(ValueError, match="--k_core must be 0 or more, got -1"):
        config(tmp_path, k_core=-1)
    write_csv(tmp_path)
    with pytest.raises(ValueError, match="the source has no ratings"):
        prepare(config(tmp_path, rating_column=None, min_rating=3.0))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Salt &amp; Pepper", "Salt & Pepper"),
        ("Salt &amp;amp; Pepper", "Salt & Pepper"),
        ("Maggiano&#39;s &#x2013; card", "Maggiano's \u2013 card"),
        ("<b>Big</b>\n <i class='x'>red</i> box", "Big red box"),
        ("&lt;p&gt;Tea&lt;/p&gt;", "Tea"),
        ("a <!-- hidden --> b", "a b"),
        ("I <3 tea, 5 < 6", "I <3 tea, 5 < 6"),
        ("  two\t spaces\u00a0here ", "two spaces here"),
        ("var aPageStart = (new Date()).getTime();", ""),
        ("nan", ""),
        ("NULL", ""),
        ("None", ""),
        ("Nano tube", "Nano tube"),
        (None, ""),
    ],
)
def test_cleaning(raw: str | None, clean: str) -> None:
    frame = pl.DataFrame({"raw_id": ["a", "b"], "title": [raw, "x"]}, schema_overrides={"title": pl.String})
    expected = pl.DataFrame({"raw_id": ["a", "b"], "title": [clean, "x"]})
    assert_frame_equal(clean_text(frame, ["title"]), expected)


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_clean_text_has_no_outer_or_doubled_blanks(text: str) -> None:
    clean = clean_text(pl.DataFrame({"title": [text]}), ["title"])["title"][0]
    assert clean == clean.strip(" \t\r\n")
    assert "  " not in clean


def test_the_card_counts_by_hand(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "items.csv").write_text("id,title,brand\ntea,green tea,Lim\ncup,cup,\npot,pot,\n")
    card = describe(load_dataset(prepare(config(tmp_path, items=tmp_path / "items.csv"))))
    assert (card.users, card.evaluated_users, card.items, card.interactions) == (2, 1, 3, 6)
    assert card.density == 6 / (2 * 3)
    assert card.repeats == pytest.approx(1 / 6)  # ann's second cup
    assert card.times is not None
    assert card.times.equal == pytest.approx(1 / 6)  # ann's pot at the time of her cup
    assert (card.times.exact_repeats, card.times.repeated_targets, card.times.undecided_targets) == (0, 0, 0)
    assert card.lengths["mean"] == 3.0
    assert (card.lengths["min"], card.lengths["max"]) == (2.0, 4.0)
    assert card.item_counts["max"] == 3.0
    assert card.coverage == {"title": 1.0, "brand": pytest.approx(1 / 3)}
    assert card.tokens["title"]["max"] == 2.0
    assert (card.times.first_day, card.times.last_day) == ("1970-01-01", "1970-01-01")
    assert "2 users (1 with 3 or more), 3 items, 6 interactions, density 100.00000%" in str(card)


REPEATED = [  # user, item, time
    *[("ann", "tea", 10, 5), ("ann", "cup", 20, 5), ("ann", "cup", 20, 1)],  # her target is in her history, exactly
    *[("bob", "tea", 10, 5), ("bob", "tea", 10, 5), ("bob", "tea", 10, 5)],  # and twice in his
    *[("cat", "pot", 10, 5), ("cat", "tea", 20, 5), ("cat", "cup", 20, 5)],  # her last two share one time
    *[("dan", "tea", 10, 5), ("dan", "cup", 20, 5), ("dan", "tea", 30, 5)],  # the same item at another time
    *[("eve", "tea", 10, 5), ("eve", "tea", 10, 5)],  # too short to be evaluated
    *[("fay", "cup", 20, 5), ("fay", "tea", 20, 5), ("fay", "cup", 20, 5)],  # apart, in one second
]


@pytest.mark.parametrize("events", [1, 7, 100])  # at a time: one user, some, all
def test_exact_repeats_by_hand(events: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrec.data.card.EVENTS", events)
    write_csv(tmp_path, REPEATED)
    card = describe(load_dataset(prepare(config(tmp_path))))
    assert card.times is not None
    assert card.times.exact_repeats == 1 + 2 + 0 + 0 + 1 + 1
    assert card.times.repeated_targets == 3  # ann, bob, fay
    assert card.times.undecided_targets == 4  # ann, bob, cat, fay
    assert card.times.equal == (1 + 2 + 1 + 0 + 1 + 2) / 17
    assert card.repeats == pytest.approx((1 + 2 + 0 + 1 + 1 + 1) / 17)
    words = str(card)
    assert "the test target of 4 users; file order decides" in words
    assert "same item and timestamp 5 interactions; the test target repeats one for 3 users" in words
    path = prepare(config(tmp_path, drop_exact_duplicates=True, name="once"))
    assert sequences(path) == {
        **{"ann": ["tea", "cup"], "bob": ["tea"], "cat": ["pot", "tea", "cup"], "dan": ["tea", "cup", "tea"]},
        **{"eve": ["tea"], "fay": ["cup", "tea"]},
    }
    once = describe(load_dataset(path)).times
    assert once is not None
    assert (once.exact_repeats, once.repeated_targets) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=25)
def test_exact_repeats_equal_a_slow_reference(rows: list[tuple[str, str, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_csv(folder, [(*row, 5) for row in rows])
        times = describe(load_dataset(prepare(config(folder)))).times
    events = {user: sorted((r for r in rows if r[0] == user), key=lambda r: r[2]) for user in {r[0] for r in rows}}
    tested = [history for history in events.values() if len(history) >= 3]
    assert times is not None
    assert times.exact_repeats == len(rows) - len(set(rows))
    assert times.repeated_targets == sum(history[-1] in history[:-1] for history in tested)
    assert times.undecided_targets == sum(history[-1][2] == history[-2][2] for history in tested)


def test_exact_duplicates_need_times(tmp_path: Path) -> None:
    write_csv(tmp_path)
    with pytest.raises(UserError, match="--drop_exact_duplicates: the source has no times; --dedupe"):
        prepare(config(tmp_path, timestamp_column=None, drop_exact_duplicates=True))


def test_titles_that_the_terminal_lacks_are_printed_with_question_marks(tmp_path: Path) -> None:
    write_csv(tmp_path)
    items = write_items(tmp_path, {"tea": "Tea \U0001f375", "cup": "Cup", "pot": "Pot"})
    command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), "table", "--input", str(tmp_path / "events.csv")]
    command += ["--items", str(items), "--name", "shop", "--data_dir", str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    run = subprocess.run(command, env=environment, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert b"item 1 | tea | Tea ?" in run.stdout


def test_the_card_counts_words_where_the_tokenizer_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path)
    monkeypatch.setattr("seqrec.data.card._minilm_tokenizer", lambda: None)
    items = write_items(tmp_path, {"tea": "unbelievably green tea", "cup": "cup", "pot": "pot"})
    card = describe(load_dataset(prepare(config(tmp_path, items=items))))
    assert card.unit == "words"
    assert card.tokens["title"]["max"] == 3.0
