"""Inputs to `prepare.py`: for each source, files made from generated rows, and what they say; some are damaged then."""

import csv
import gzip
import io
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.hostile.reading import REFUSED, Event, Rows, is_absent
from tests.hostile.values import FILE_NAMES, altered, anything, damaged, maybe_absent, name, plain_text, some, word

FIRST, LAST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 and 9999."""
INPUT = "input"
"""Key of the options whose values are paths in the case's folder."""


@dataclass(frozen=True)
class Case:
    """One input."""

    source: str
    files: Mapping[str, bytes]
    options: Mapping[str, Any]
    """Flags; paths are relative to the folder of the files."""
    paths: Mapping[str, str]
    """Flags that are paths."""
    rows: Rows | str | None
    """What must come of it: rows, REFUSED, or None where nothing is known but that it may not break."""
    datasets: Mapping[str, Rows] = field(default_factory=dict)
    """Prepared datasets that lie there already."""


Ids = Sequence[str | None]


def delimited(header: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def whole(ids: Ids) -> list[str | None]:
    """Return ids as a column of text gives them: whole numbers written as fractions, if all are, lose theirs."""
    filled = [raw for raw in ids if raw]
    if filled and all(re.fullmatch(r"-?[0-9]+\.0+", raw) for raw in filled):
        return [raw and raw.partition(".")[0] for raw in ids]
    return [raw or None for raw in ids]


@st.composite
def a_time(draw: DrawFn) -> tuple[str, int | None]:
    """Return a number of seconds as text and in microseconds, None for one that is none."""
    kind = draw(st.sampled_from(["whole"] * 6 + ["fraction", "float", "odd", "edge"]))
    if kind == "odd":
        return draw(
            st.sampled_from(["", "x", "nan", "inf", "1e400", "2024-05-01", "9" * 25, "--1", "0x10", "1,5"])
        ), None
    if kind == "edge":
        number = draw(st.sampled_from([FIRST, FIRST - 1, LAST, LAST + 1, 1_700_000_000_000, -1, 0]))
        return str(number), number * 10**6 if FIRST <= number <= LAST else None
    number = draw(st.integers(-5, 9) | st.integers(0, 2_000_000_000))
    text = {"whole": str(number), "float": f"{number}.0", "fraction": f"{number}.{draw(st.integers(0, 999)):03d}"}[kind]
    return text, int(Decimal(text) * 10**6)


def times_of(times: Sequence[tuple[str, int | None]]) -> list[int] | str:
    known = [time for _, time in times if time is not None]
    return known if len(known) == len(times) else REFUSED


@st.composite
def some_text(draw: DrawFn, ids: Ids) -> tuple[list[str], list[list[str | None]]]:
    """Return the names of attributes, and a row of an id and attributes for most ids."""
    names = draw(
        st.sampled_from([["title"], ["title"], ["title", "brand"], ["title", "item"], ["Ti tle"], ["x[1]", "é"]])
    )
    known = [raw for raw in dict.fromkeys(ids) if raw and (draw(st.integers(0, 9)) or draw(st.booleans()))]
    cell = st.one_of(word, word, plain_text, st.none())
    return names, [[raw, *(draw(cell) for _ in names)] for raw in known]


def texts_of(names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> dict[str, dict[str, str | None]]:
    return {row[0] or "": dict(zip(names, row[1:], strict=True)) for row in rows}


def joined_lists(names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> bool:
    """Return whether a column of texts counts as one of lists, so that its brackets go."""
    for at in range(1, len(names) + 1):
        filled = [row[at] for row in rows if not is_absent(row[at])]
        if filled and all(re.fullmatch(r"(?s)\s*\[.*\]\s*", text or "") for text in filled):
            return True
    return False


missing_text = st.sampled_from(["error", "item_id", "item_id", "drop"])


@st.composite
def spoilt(draw: DrawFn, case: Case) -> Case:
    """Return the case, or one of four times another in which a file is damaged."""
    if draw(st.integers(0, 3)):
        return case
    file = draw(st.sampled_from(sorted(case.files)))
    return replace(case, files={**case.files, file: draw(damaged(case.files[file]))}, rows=None)


@st.composite
def table(draw: DrawFn) -> Case:
    """CSV, TSV or Parquet of text columns, with items beside."""
    users, items = (list(ids) for ids in zip(*draw(some(st.tuples(maybe_absent, maybe_absent))), strict=True))
    ending = draw(st.sampled_from([".csv", ".csv", ".csv.gz", ".tsv", ".parquet"]))
    times = [draw(a_time()) for _ in users] if draw(st.booleans()) else None
    ratings = [draw(st.sampled_from(["1", "4.5", "-2"])) for _ in users]
    header = ["user_id", "item_id", *(["when"] if times else []), "stars"]
    columns = [users, items, *([[text for text, _ in times]] if times else []), ratings]
    content = write_table(ending, header, columns)
    instants = None if times is None else times_of(times)
    rows: Rows | str | None = REFUSED
    if not isinstance(instants, str):
        on_missing, known = draw(missing_text), whole(items)
        untimed: list[int | None] = [None] * len(users)
        events = list(zip(whole(users), known, instants or untimed, strict=True))
        rows = Rows(events, on_missing_text=on_missing)
    stem = draw(st.sampled_from(FILE_NAMES))
    decoys = {f"{other}{ending}": write_table(ending, header, [["z"] for _ in header]) for other in ("x1", "axb", "a")}
    files, paths = {**decoys, f"{stem}{ending}": content}, {"input": f"{stem}{ending}"}
    options: dict[str, Any] = {
        "timestamp_column": "when" if times else None,
        "rating_column": draw(st.sampled_from(["stars", None])),
    }
    if isinstance(rows, Rows):
        options["on_missing_text"] = rows.on_missing_text
        if draw(st.booleans()):
            names, lines = draw(some_text(items))
            kind = draw(st.sampled_from([".csv", ".tsv", ".parquet", ".json"]))
            files[f"items{kind}"] = write_items(kind, names, lines)
            paths["items"] = f"items{kind}"
            rows = rows_with_text(
                rows,
                names,
                [
                    [raw, *rest]
                    for raw, rest in zip(whole([line[0] for line in lines]), [line[1:] for line in lines], strict=True)
                ],
                kind,
            )
    return draw(spoilt(Case("table", files, options, paths, rows)))


def rows_with_text(rows: Rows, names: list[str], lines: Sequence[Sequence[str | None]], kind: str) -> Rows | str | None:
    if (
        "item" in names
        or not lines
        or any(is_absent(line[0]) for line in lines)
        or len({line[0] for line in lines}) < len(lines)
    ):
        return REFUSED if lines else None
    if kind != ".json" and joined_lists(names, lines):
        return None
    return replace(rows, texts=texts_of(names, lines), attributes=names)


def write_table(ending: str, header: Sequence[str], columns: Sequence[Sequence[Any]]) -> bytes:
    if ending == ".parquet":
        return parquet({name: pl.Series(values, dtype=pl.String) for name, values in zip(header, columns, strict=True)})
    text = delimited(header, zip(*columns, strict=True), "\t" if ending == ".tsv" else ",")
    return gzip.compress(text, mtime=0) if ending.endswith(".gz") else text


def parquet(columns: Mapping[str, pl.Series]) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(columns).write_parquet(out)
    return out.getvalue()


def write_items(kind: str, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> bytes:
    if kind == ".json":
        return json.dumps({row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}).encode()
    return write_table(kind, ["id", *names], [*zip(*rows, strict=True)] or [[] for _ in ["id", *names]])


TYPED: dict[str, tuple[SearchStrategy[Any], Any]] = {
    "whole": (st.integers(-3, 9) | st.integers(2**53, 2**63 - 1), pl.Int64),
    "large": (st.integers(2**63, 2**64 - 1), pl.UInt64),
    "float": (st.sampled_from([1.0, 2.0, -0.0, 1.5, float("nan"), float("inf"), 2.0**53, None]), pl.Float64),
    "categorical": (st.sampled_from(["a", "b", "", None]), pl.Categorical),
    "nothing": (st.none(), pl.Null),
    "list": (st.lists(st.integers(0, 3), max_size=2), pl.List(pl.Int64)),
    "array": (st.lists(st.integers(0, 3), min_size=2, max_size=2), pl.Array(pl.Int64, 2)),
    "lists": (st.lists(st.lists(st.integers(0, 3), max_size=1), max_size=2), pl.List(pl.List(pl.Int64))),
    "struct": (st.integers(0, 3).map(lambda n: {"a": n}), pl.Struct({"a": pl.Int64})),
    "bytes": (st.binary(max_size=3), pl.Binary),
    "duration": (st.timedeltas(), pl.Duration("us")),
    "clock": (st.times(), pl.Time),
    "date": (st.dates(), pl.Date),
    "instant": (st.datetimes(), pl.Datetime("us")),
    "bool": (st.booleans(), pl.Boolean),
    "text": (name, pl.String),
}
IDS = ("whole", "large", "float", "categorical", "nothing", "text")


@st.composite
def typed(draw: DrawFn) -> Case:
    """Parquet with columns of all types, where ids, times, ratings and texts are expected."""
    size = draw(st.integers(0, 5))
    kinds = {
        key: draw(st.sampled_from(list(TYPED) if draw(st.integers(0, 2)) == 0 else likely))
        for key, likely in (
            ("user_id", ["text", "whole", "float"]),
            ("item_id", ["text", "whole", "float"]),
            ("when", ["instant", "date", "whole"]),
            ("stars", ["float", "whole"]),
        )
    }
    values = {key: [draw(TYPED[kind][0]) for _ in range(size)] for key, kind in kinds.items()}
    columns = {key: pl.Series(key, values[key], dtype=TYPED[kind][1], strict=False) for key, kind in kinds.items()}
    files, paths = {"in.parquet": parquet(columns)}, {"input": "in.parquet"}
    options: dict[str, Any] = {"on_missing_text": "item_id"}
    rows: Rows | str | None = REFUSED
    if kinds["user_id"] in IDS and kinds["item_id"] in IDS and size:
        users, items = (typed_ids(kinds[key], values[key]) for key in ("user_id", "item_id"))
        rows = (
            REFUSED
            if users is None or items is None
            else Rows([(u, i, None) for u, i in zip(users, items, strict=True)], on_missing_text="item_id")
        )
    if draw(st.booleans()):
        options |= {
            "timestamp_column": "when",
            "time_unit": draw(st.sampled_from(["s", "ms", "us", "ns", "iso"])),
            "rating_column": "stars",
        }
        rows = None if isinstance(rows, Rows) else rows
    if draw(st.booleans()):
        kind = draw(st.sampled_from(list(TYPED)))
        ids = draw(st.lists(name, unique=True, max_size=3))
        text = pl.Series([draw(TYPED[kind][0]) for _ in ids], dtype=TYPED[kind][1], strict=False)
        files["items.parquet"] = parquet({"id": pl.Series(ids, dtype=pl.String), "title": text})
        paths["items"] = "items.parquet"
        rows = None if isinstance(rows, Rows) else rows
    return draw(spoilt(Case("table", files, options, paths, rows)))


def typed_ids(kind: str, values: Sequence[Any]) -> list[str | None] | None:
    """Return what a column's values are as ids; None if they can't be."""
    if kind == "float":
        present = [value for value in values if value is not None and value == value]
        if any(value in (float("inf"), 1.5) or abs(value) >= 2**53 for value in present):
            return None
        return [None if value is None or value != value else str(int(value)) for value in values]
    if kind in ("text", "categorical"):
        return whole(values)
    return [None if value is None else str(value) for value in values]


BLANK_WORD = " \t\r\n\x0b\x0c"


@st.composite
def sequences(draw: DrawFn) -> Case:
    """Lines of a user and items, split at ASCII's blanks and nothing else."""
    lines = [
        [part for text in draw(some(name, 5)) for part in re.split(f"[{BLANK_WORD}]+", text)]
        for _ in range(draw(st.integers(1, 5)))
    ]
    between = draw(st.sampled_from([" ", "\t", "  "]))
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    text = end.join(between.join(line) for line in lines) + draw(st.sampled_from(["", end]))
    text = draw(st.sampled_from(["", "\ufeff"])) + text
    read = [
        [part for part in re.split(f"[{BLANK_WORD}]+", line) if part]
        for line in text.removeprefix("\ufeff").split("\n")
    ]
    events = [(line[0], item, None) for line in read if line for item in line[1:]]
    bad = any(len(line) == 1 for line in read) or not events or any(is_absent(part) for line in read for part in line)
    rows: Rows | str = REFUSED if bad else Rows(events)
    files, paths = {"in.txt": text.encode()}, {"input": "in.txt"}
    options: dict[str, Any] = {}
    if isinstance(rows, Rows) and draw(st.booleans()):
        options["on_missing_text"] = draw(missing_text)
        names, items = draw(some_text([item for _, item, _ in events]))
        files["items.csv"], paths["items"] = write_items(".csv", names, items), "items.csv"
        ids = whole([line[0] for line in items])
        found = rows_with_text(
            replace(rows, on_missing_text=options["on_missing_text"]),
            names,
            [[raw, *line[1:]] for raw, line in zip(ids, items, strict=True)],
            ".csv",
        )
        return draw(spoilt(Case("sequences", files, options, paths, found)))
    return draw(spoilt(Case("sequences", files, options, paths, rows)))


@st.composite
def histories(draw: DrawFn) -> Case:
    """{user: [item, ...]} in JSON."""
    ids = name if draw(st.booleans()) else maybe_absent
    content = draw(st.dictionaries(word, st.lists(ids, max_size=4), min_size=1, max_size=4))
    flat = [(user, item) for user, items in content.items() for item in items]
    users, items = whole([user for user in content for _ in content[user]]), whole([item for _, item in flat])
    rows: Rows | str | None = Rows([(u, i, None) for u, i in zip(users, items, strict=True)]) if flat else REFUSED
    if any(item is None or item.strip() in ("...", "None", "nan", "NaN") for _, item in flat) or "" in content:
        rows = REFUSED
    if isinstance(rows, Rows) and (whole(list(content)) != list(content) or any(is_absent(i) for _, i in flat)):
        rows = None
    body: Any = content
    if draw(st.integers(0, 3)) == 0:
        body, rows = draw(altered(content)), None
    return draw(spoilt(Case("histories", {"in.json": json.dumps(body).encode()}, {}, {"input": "in.json"}, rows)))


@st.composite
def amazon(draw: DrawFn) -> Case:
    """Reviews and metadata as lines of JSON, or as an array of them."""
    old = draw(st.booleans())
    user, item, time, rating = (
        ("reviewerID", "asin", "unixReviewTime", "overall")
        if old
        else ("user_id", "parent_asin", "timestamp", "rating")
    )
    events: list[Event] = [
        (draw(maybe_absent), draw(maybe_absent), draw(st.integers(0, 2_000_000_000)) * 10**6)
        for _ in range(draw(st.integers(1, 6)))
    ]
    reviews: list[Any] = [
        {user: u, item: i, time: (t or 0) // (10**6 if old else 1000), rating: 5.0} for u, i, t in events
    ]
    ids = [i for _, i, _ in events]
    _, lines = draw(some_text(ids))
    meta: list[Any] = [
        {item: line[0], "title": line[1], ("category" if old else "categories"): ["a", "b"]} for line in lines
    ]
    on_missing = draw(missing_text)
    texts = {line[0] or "": {"title": line[1], "category": "a b"} for line in lines}
    rows: Rows | str | None = Rows(events, texts, ("title", "brand", "category"), on_missing_text=on_missing)
    if not meta or any(text and text[0] in "[{" for event in events for text in event[:2] if isinstance(text, str)):
        rows = REFUSED
    if draw(st.integers(0, 3)) == 0:
        reviews, rows = draw(altered(reviews, 3)), None
    if draw(st.integers(0, 4)) == 0:
        meta, rows = draw(altered(meta, 3)), None
    files = {"r.json": json_lines(draw, reviews), "meta_r.json": json_lines(draw, meta)}
    return draw(spoilt(Case("amazon", files, {"on_missing_text": on_missing}, {"input": "."}, rows)))


def json_lines(draw: DrawFn, objects: Any) -> bytes:
    if not isinstance(objects, list) or draw(st.booleans()):
        return json.dumps(objects).encode()
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


@st.composite
def splits(draw: DrawFn) -> tuple[dict[str, Any], Rows | None]:
    """Return train, val, test, smap, umap and what they say, with ids from 0 or 1."""
    keys = draw(st.lists(name.filter(lambda text: not is_absent(text)), unique=True, min_size=1, max_size=5))
    first = draw(st.integers(0, 1))
    lists = [
        draw(st.lists(st.integers(0, len(keys) - 1), min_size=3, max_size=6)) for _ in range(draw(st.integers(1, 4)))
    ]
    people = draw(
        st.lists(name.filter(lambda text: not is_absent(text)), unique=True, min_size=len(lists), max_size=len(lists))
    )
    numbered = [[at + first for at in one] for one in lists]
    content = {
        "train": {str(u): one[:-2] for u, one in enumerate(numbered)},
        "val": {str(u): one[-2:-1] for u, one in enumerate(numbered)},
        "test": {str(u): one[-1:] for u, one in enumerate(numbered)},
        "smap": {key: at + first for at, key in enumerate(keys)},
        "umap": {person: u for u, person in enumerate(people)},
    }
    events = [(person, keys[at], None) for person, one in zip(people, lists, strict=True) for at in one]
    return content, Rows(events, numbering=keys)


@st.composite
def recformer(draw: DrawFn) -> Case:
    """Recformer's five files."""
    content, rows = draw(splits())
    on_missing = draw(missing_text)
    names, lines = draw(some_text(list(content["smap"])))
    meta: Any = {line[0]: dict(zip(names, line[1:], strict=True)) for line in lines}
    expected: Rows | str | None = None
    if rows is not None and lines:
        expected = (
            REFUSED
            if "item" in names
            else replace(rows, texts=texts_of(names, lines), attributes=names, on_missing_text=on_missing)
        )
    everything = {**content, "meta_data": meta}
    if draw(st.integers(0, 2)) == 0:
        everything, expected = draw(altered(everything, 3)), None
    files = {
        f"{key}.json": json.dumps(value).encode()
        for key, value in everything.items()
        if re.fullmatch(r"\w+", key, re.ASCII)
    }
    options = {"on_missing_text": on_missing, "resplit": False}
    return draw(spoilt(Case("recformer", files or {"train.json": b""}, options, {"input": "."}, expected)))


@st.composite
def pickled(draw: DrawFn) -> Case:
    """The same in a pickle, whole or hostile."""
    content, expected = draw(splits())
    content = {
        key: {int(u): one for u, one in value.items()} if key in ("train", "val", "test") else value
        for key, value in content.items()
    }
    body: Any = content
    if draw(st.integers(0, 2)) == 0:
        body, expected = (
            draw(
                st.one_of(altered(content, 3), anything, st.sampled_from([{1, 2}, b"x", 1.5, (1,), ValueError, print]))
            ),
            None,
        )
    protocol = draw(st.integers(0, 5))
    return draw(
        spoilt(Case("pickle", {"dataset.pkl": pickle.dumps(body, protocol)}, {}, {"input": "dataset.pkl"}, expected))
    )


def fits_dat(text: str | None) -> bool:
    return not is_absent(text) and not re.search(r"::|[\n\r]|^:|:$", text or "") and text != "\ufeff"


@st.composite
def movielens(draw: DrawFn) -> Case:
    """Ratings and movies, .dat in UTF-8 or latin-1, or CSV."""
    dat, latin = draw(st.booleans()), draw(st.booleans())
    ids = name.filter(fits_dat) if dat else maybe_absent
    events = [(draw(ids), draw(ids), draw(a_time())) for _ in range(draw(st.integers(1, 6)))]
    titles = {raw: draw(word.filter(fits_dat)) for raw in dict.fromkeys(i for _, i, _ in events) if not is_absent(raw)}
    on_missing = draw(missing_text)
    whole_times = times_of([time for _, _, time in events])
    rows: Rows | str | None = REFUSED
    if not isinstance(whole_times, str):
        texts = {raw: {"title": title, "category": "A B"} for raw, title in titles.items()}
        rows = Rows(
            [(u, i, t) for (u, i, _), t in zip(events, whole_times, strict=True)],
            texts,
            ("title", "category"),
            on_missing_text=on_missing,
        )
    ratings, movies = [[u, i, "5", t[0]] for u, i, t in events], [[raw, title, "A|B"] for raw, title in titles.items()]
    if dat:
        texts_out = ["".join("::".join(map(str, row)) + "\n" for row in part) for part in (ratings, movies)]
        if any(text.startswith("\ufeff") for text in texts_out):
            rows = None
        encoded = [text.encode() for text in texts_out]
        if latin and all(max(map(ord, text)) < 256 for text in texts_out if text):
            encoded = [text.encode("latin-1") for text in texts_out]
            if any(is_utf8(part) and not part.isascii() for part in encoded):
                rows = None
        files = dict(zip(("ratings.dat", "movies.dat"), encoded, strict=True))
    else:
        files = {
            "ratings.csv": delimited(["userId", "movieId", "rating", "timestamp"], ratings),
            "movies.csv": delimited(["movieId", "title", "genres"], movies),
        }
    if not movies:
        rows = REFUSED if not isinstance(rows, Rows) or on_missing != "item_id" else None
    return draw(spoilt(Case("movielens", files, {"on_missing_text": on_missing}, {"input": "."}, rows)))


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def fits_tab(text: str | None) -> bool:
    return not is_absent(text) and not re.search(r"[\t\n\r]", text or "") and not (text or "").startswith("\ufeff")


@st.composite
def atomic(draw: DrawFn) -> Case:
    """RecBole's tables of tabs, with or without numberings."""
    ids = name.filter(fits_tab)
    users, items = (draw(st.lists(ids, min_size=1, max_size=6, unique=True)) for _ in range(2))
    at = st.tuples(
        st.integers(0, len(users) - 1),
        st.integers(0, len(items) - 1),
        st.integers(-9, 9) | st.integers(0, 2_000_000_000),
    )
    events = draw(some(at))
    numbered = draw(st.sampled_from(["", "", "users", "items", "both"]))

    def shown(kind: str, own: Sequence[str], place: int) -> str:
        return str(place) if numbered in (kind, "both") else own[place]

    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{shown('users', users, u)}\t{shown('items', items, i)}\t{t}" for u, i, t in events]
    files = {"x.inter": "".join(line + "\n" for line in lines).encode()}
    rows: Rows | str | None = Rows([(users[u], items[i], t * 10**6) for u, i, t in events])
    if numbered in ("users", "both"):
        files["x.user2index"] = "".join(f"{raw}\t{at}\n" for at, raw in enumerate(users)).encode()
    if numbered in ("items", "both"):
        files["x.item2index"] = "".join(f"{raw}\t{at}\n" for at, raw in enumerate(items)).encode()
        rows = replace(rows, numbering=items) if isinstance(rows, Rows) else rows
    if draw(st.integers(0, 3)) == 0 and numbered:  # raw ids where numbers are expected, or a lacking line
        file = draw(st.sampled_from(sorted(set(files) - {"x.inter"})))
        kept = files[file].splitlines(keepends=True)
        files[file], rows = b"".join(kept[: draw(st.integers(0, len(kept) - 1))]), None
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["on_missing_text"] = draw(missing_text)
        cells = [[raw, draw(word.filter(fits_tab))] for raw in items]
        files["x.text"] = delimited_plain(["item_id:token", "text:token_seq"], cells)
        if isinstance(rows, Rows):
            rows = replace(
                rows,
                texts={raw: {"title": text} for raw, text in cells},
                attributes=("title",),
                on_missing_text=options["on_missing_text"],
            )
    return draw(spoilt(Case("atomic", files, options, {"input": "."}, rows)))


def delimited_plain(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in [header, *rows]).encode()


@st.composite
def a_dataset(draw: DrawFn, timed: bool, attributes: Sequence[str]) -> Rows:
    ids = st.one_of(name.filter(lambda text: not is_absent(text)), st.sampled_from(["a", "a@a", "a@b"]))
    events = [
        (draw(ids), draw(ids), draw(st.integers(0, 99)) * 10**6 if timed else None)
        for _ in range(draw(st.integers(1, 9)))
    ]
    items = dict.fromkeys(item for _, item, _ in events)
    return Rows(
        events,
        {item or "": {key: f"{key} of {number % 2}" for key in attributes} for number, item in enumerate(items)},
        attributes,
    )


@st.composite
def corpus(draw: DrawFn) -> Case:
    """Several prepared datasets as one."""
    few = st.lists(st.sampled_from(["a", "b", "a@b", "b@a", "x[1]", "a*"]), unique=True, min_size=1, max_size=3)
    names = draw(st.one_of(few, st.just(["b", "a@b"])))
    timed = draw(st.booleans())
    domains = {key: draw(a_dataset(timed, ("title",))) for key in names}
    prefix = draw(st.booleans())
    events: list[Event] = []
    texts: dict[str, Mapping[str, str | None]] = {}
    people: dict[str, set[tuple[str | None, str]]] = {}
    clash = False
    for key, domain in domains.items():
        called = {item: f"{key}/{item}" if prefix else item for _, item, _ in domain.events}
        for user in dict.fromkeys(user for user, _, _ in domain.events):
            people.setdefault(f"{user}@{key}", set()).add((user, key))
            own = sorted((event for event in domain.events if event[0] == user), key=lambda event: event[2] or 0)
            events += [(f"{user}@{key}", called[item], time) for _, item, time in own]
        for item, text in (domain.texts or {}).items():
            clash |= texts.setdefault(called[item] or "", text) != text
    merged = any(len(who) > 1 for who in people.values())
    rows = REFUSED if clash or merged else Rows(events, texts, ("title",))
    return Case("corpus", {}, {"datasets": tuple(names), "prefix_items": prefix}, {}, rows, domains)


@st.composite
def cold(draw: DrawFn) -> Case:
    """A prepared dataset whose items become new to the test."""
    domain = draw(a_dataset(draw(st.booleans()), draw(st.sampled_from([(), ("title",)]))))
    share = draw(st.sampled_from([0.1, 0.5, 0.999, 0, 1, float("nan"), -1, float("inf")]))
    known = draw(st.sampled_from(["base", "base", "base", "none", "../base", "b*"]))
    rows = None if known == "base" and 0 < share < 1 else REFUSED
    return Case(
        "cold", {}, {"dataset": known, "share": share, "seed": draw(st.integers(0, 5))}, {}, rows, {"base": domain}
    )


CASES: dict[str, Callable[[], SearchStrategy[Case]]] = {
    "table": table,
    "Parquet columns": typed,
    "sequences": sequences,
    "histories": histories,
    "amazon": amazon,
    "recformer": recformer,
    "pickle": pickled,
    "movielens": movielens,
    "atomic": atomic,
    "corpus": corpus,
    "cold": cold,
}
