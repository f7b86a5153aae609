"""Trying a source's inputs: preparing each, and comparing what comes of it with its rows."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis.strategies import SearchStrategy

from seqrec.data.dataset import load_dataset
from seqrec.data.dataset_files import hash_item_ids
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources import amazon, atomic, cold, corpus, histories, movielens, pickled, recformer, sequences, table
from tests.conftest import write_dataset
from tests.hostile.reading import Rows, compare
from tests.hostile.sources import CASES, Case
from tests.hostile.trial import Check

SOURCES: dict[str, type[Preparation]] = {
    source.kind: source
    for source in (
        *(amazon.Amazon, atomic.Atomic, cold.Cold, corpus.Corpus, histories.HistoryFiles, movielens.MovieLens),
        *(pickled.Pickled, recformer.JsonSplits, sequences.Sequences, table.TableFile),
    )
}


def prepare_case(case: Case, place: Path) -> None:
    """Prepare a source's input and compare what comes of it with its rows."""
    (place / "in").mkdir()
    for name, content in case.files.items():
        (place / "in" / name).write_bytes(content)
    for name, rows in case.datasets.items():
        write_rows(place / "data" / name, rows)
    paths: dict[str, Any] = {flag: place / "in" / path for flag, path in case.paths.items()}
    config = SOURCES[case.source](**{"name": "made", "data_dir": place / "data", **case.options, **paths})
    made = prepare(config)
    dataset = load_dataset(made)
    assert len(dataset.item_table()) == dataset.num_items
    assert len(dataset.user_table()) == dataset.num_users
    if case.rows is not None:
        compare(made, case.rows)


def write_rows(folder: Path, rows: Rows) -> None:
    """Write a prepared dataset, by the contract."""
    users, items = (list(dict.fromkeys(event[index] for event in rows.events)) for index in (0, 1))
    timed = rows.events[0][2] is not None
    own = [sorted((e for e in rows.events if e[0] == user), key=lambda event: event[2] or 0) for user in users]
    times = [[(time or 0) // 10**6 for _, _, time in events] for events in own] if timed else None
    write_dataset(folder, [[items.index(item) + 1 for _, item, _ in events] for events in own], len(items), times)
    texts = rows.texts or {}
    columns = {name: [texts[item or ""][name] for item in items] for name in rows.attributes}
    numbers = pl.Series("item", range(1, len(items) + 1), dtype=pl.Int32)
    pl.DataFrame({"item": numbers, "raw_id": items, **columns}).write_parquet(folder / "items.parquet")
    people = pl.Series("user", range(len(users)), dtype=pl.Int32)
    pl.DataFrame({"user": people, "raw_id": users}).write_parquet(folder / "users.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"attributes": list(rows.attributes), "item_ids_sha256": hash_item_ids([str(item) for item in items])}
    (folder / "manifest.json").write_text(json.dumps(manifest))


KINDS: dict[str, tuple[SearchStrategy[Any], Check]] = {name: (case(), prepare_case) for name, case in CASES.items()}
