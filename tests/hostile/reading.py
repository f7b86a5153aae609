"""A naive reading of rows, without any of the project's code, that prepared datasets are compared with.

Letters: U users, E events, N items.
"""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.hostile.values import BLANKS

Event = tuple[Any, Any, int | None]
"""User and item, text or None; time in microseconds or None."""


@dataclass(frozen=True)
class Rows:
    """What a source's files say."""

    events: Sequence[Event]
    """In the order of the file."""
    texts: Mapping[Any, Mapping[str, str | None]] | None = None
    """Attributes by item; None where there is no text at all."""
    attributes: Sequence[str] = ()
    """Their names, in order."""
    numbering: Sequence[str] | None = None
    """Items in the source's own order, where it has one."""
    on_missing_text: str = "error"


REFUSED = "refused"
"""In place of rows: files that must not be accepted."""


def is_absent(text: str | None) -> bool:
    """Return whether a text is none, or of blanks alone."""
    return text is None or not text.strip(BLANKS + "".join(map(chr, range(0x2000, 0x200B))))


def cleaned(text: str | None) -> str:
    """Return a text as datasets hold it: entities and tags resolved, blanks single, "" for none."""
    text = text or ""
    if re.search(r"&(#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]+);", text, re.ASCII):
        text = html.unescape(html.unescape(text))
    text = re.sub(r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>", " ", text)
    text = re.sub(rf"[{BLANKS}\u2000-\u200b\x00-\x1f\x7f]+", " ", text).strip(" ")
    return "" if text.lower() in ("null", "nan", "none") or "getTime()" in text else text


def compare(folder: Path, rows: Rows | str) -> None:
    """Raise AssertionError unless a prepared dataset holds what the rows say."""
    assert isinstance(rows, Rows), "accepted what should have been refused"
    assert rows.events, "accepted a source without events"
    for user, item, _ in rows.events:
        assert not is_absent(user), f"accepted the user {user!r}"
        assert not is_absent(item), f"accepted the item {item!r}"
    texts = rows.texts or {}
    clean = {item: [cleaned(texts.get(item, {}).get(name)) for name in rows.attributes] for _, item, _ in rows.events}
    lacking = {item for item, values in clean.items() if rows.attributes and not any(values)}
    kept = [event for event in rows.events if not (rows.on_missing_text == "drop" and event[1] in lacking)]
    assert kept, "accepted a source of which nothing is left"
    assert rows.on_missing_text != "error" or not lacking, f"accepted items without text: {lacking}"
    left = {event[index] for event in kept for index in (0, 1)}
    users = [user for user in dict.fromkeys(event[0] for event in rows.events) if any(e[0] == user for e in kept)]
    order = rows.numbering if rows.numbering is not None else dict.fromkeys(event[1] for event in rows.events)
    items = [item for item in order if item in left and any(e[1] == item for e in kept)]
    assert all(event[1] in items for event in kept), "accepted an item that the source does not number"
    table = pl.read_parquet(folder / "items.parquet", glob=False)
    assert pl.read_parquet(folder / "users.parquet", glob=False)["raw_id"].to_list() == users
    assert table["raw_id"].to_list() == items
    for item in lacking & set(items):
        clean[item][0] = item
    attributes = list(rows.attributes)
    if not attributes and rows.on_missing_text == "item_id":
        attributes, clean = ["title"], {item: [item] for item in clean}
    assert table.columns[2:] == attributes
    assert [list(row[2:]) for row in table.rows()] == [clean[item] for item in items]
    _compare_sequences(folder, kept, users, items)


def _compare_sequences(folder: Path, kept: Sequence[Event], users: Sequence[Any], items: Sequence[Any]) -> None:
    number = {item: at for at, item in enumerate(items, start=1)}
    timed = kept[0][2] is not None
    histories = []
    for user in users:
        own = [(time, item) for who, item, time in kept if who == user]
        histories.append(sorted(own, key=lambda event: event[0] or 0) if timed else own)  # a stable sort
    found = {path.stem: np.load(path) for path in (folder / "sequences").glob("*.npy")}
    assert found["offsets"].tolist() == np.cumsum([0, *map(len, histories)]).tolist()
    assert found["items"].tolist() == [number[item] for history in histories for _, item in history]
    assert ("timestamps" in found) == timed
    if timed:
        seconds = [math.floor((time or 0) / 10**6) for history in histories for time, _ in history]
        assert found["timestamps"].tolist() == seconds
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    counts = [manifest[name] for name in ("num_users", "num_items", "num_interactions")]
    assert counts == [len(users), len(items), len(kept)]
