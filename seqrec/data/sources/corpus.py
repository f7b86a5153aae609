"""Several prepared datasets as one: what a model is pretrained on, its domains one after another.

A person who bought in two domains is two users, `raw_id@domain`, as in Recformer's own corpus. An item that two domains
share is one item, if they agree on its text; where they number unrelated items alike, `prefix_items` keeps them apart.
Text attributes are those of all domains, in the order in which they first appear; timestamps are kept if all have them.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from seqrec.basics.checks import require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset, find_dataset
from seqrec.data.near_titles import find_near_titles
from seqrec.data.preparation import Preparation, RawData

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus(Preparation):
    """Prepared datasets joined for pretraining."""

    kind: ClassVar[str] = "corpus"

    datasets: tuple[str, ...]
    """Names of the prepared datasets to join, in this order."""
    disjoint_from: tuple[str, ...] = ()
    """Datasets that a model will be finetuned or validated on: the corpus is to share no item with them."""
    near_titles: float = 0.8
    """An item is shared, too, if its title and one of theirs have this share of all their words: 1 the same words; 0
    looks at ids alone."""
    on_shared_items: Literal["error", "drop"] = "error"
    """Items shared with those datasets: stop, or leave them out."""
    prefix_items: bool = False
    """Put the domain before each item's id, so that no two domains share an item."""

    def __post_init__(self) -> None:
        super(Corpus, self).__post_init__()
        require_at_least(0, self, "near_titles")
        require_at_most(1, self, "near_titles")

    def read(self, scratch: Path) -> RawData:
        """Return the joined sequences and the items' text."""
        if not self.datasets:
            raise UserError("--datasets names none: give the prepared datasets to join, for example --datasets a b")
        if len(set(self.datasets)) < len(self.datasets):
            raise UserError(f"--datasets names one twice: {' '.join(self.datasets)}")
        domains = [find_dataset(name, None, self.data_dir) for name in self.datasets]
        shared = self._shared_items(domains)
        timed = all(domain.timestamps is not None for domain in domains)
        frames = [self._events(domain, timed) for domain in domains]
        _check_users(domains)
        items = self._items(domains)
        return RawData(
            pl.concat(frames).filter(~pl.col("item").is_in(list(shared))) if shared else pl.concat(frames),
            items.filter(~pl.col("raw_id").is_in(list(shared))) if shared else items,
            origin=" + ".join(self.datasets),
        )

    def _shared_items(self, domains: list[Dataset]) -> set[str]:
        """Return the items, as they are called here, that a dataset of `disjoint_from` has too.

        Raises:
            UserError: If there are any and they are not to be dropped.
        """
        shared: set[str] = set()
        for name in self.disjoint_from:
            other = find_dataset(name, None, self.data_dir)
            other_items, other_users = _raw_ids(other, "items"), _raw_ids(other, "users")
            for domain in domains:
                by_id = _raw_ids(domain, "items") & other_items
                by_title = self._near_titles(domain, other)
                users = _raw_ids(domain, "users") & other_users
                log.info(
                    "%s and %s share %d items by id, %d more by title, and %d users",
                    domain.name, name, len(by_id), len(by_title.keys() - by_id), len(users),
                )  # fmt: skip
                items = by_id | by_title.keys()
                if items and self.on_shared_items == "error":
                    first = min(by_id or by_title)
                    told = repr(first) if by_id else f"{first!r}, {by_title[first]}"
                    raise UserError(
                        f"{domain.name} shares {len(items)} items with {name}, such as {told}: a model that "
                        "has read their histories would be tested on what it was trained on. "
                        "--on_shared_items drop leaves them out"
                    )
                shared |= {self._item_name(domain) + item for item in items}
        return shared

    def _near_titles(self, domain: Dataset, other: Dataset) -> dict[str, str]:
        """Return the items of a domain whose title is near to one of another dataset: both titles of each."""
        if not self.near_titles or not domain.attributes or not other.attributes:
            return {}
        own, theirs = domain.item_table(), other.item_table()
        titles, others = own[domain.attributes[0]], theirs[other.attributes[0]]
        found = find_near_titles(titles, others, self.near_titles).unique("row", keep="first", maintain_order=True)
        return {
            item: f"{title!r} there and {near!r} here"
            for item, title, near in zip(
                own["raw_id"].gather(found["row"]),
                others.gather(found["other"]),
                titles.gather(found["row"]),
                strict=True,
            )
        }

    def _item_name(self, domain: Dataset) -> str:
        return f"{domain.name}/" if self.prefix_items else ""

    def _events(self, domain: Dataset, timed: bool) -> pl.LazyFrame:
        users = _users(domain)
        items = self._item_name(domain) + domain.item_table()["raw_id"]
        columns = {
            "user": users.gather(np.repeat(np.arange(domain.num_users), np.diff(domain.offsets))),
            "item": items.gather(np.asarray(domain.items) - 1),
        }
        if timed:
            columns["timestamp"] = pl.Series(np.asarray(domain.timestamps))
        return pl.LazyFrame(columns)

    def _items(self, domains: list[Dataset]) -> pl.DataFrame:
        """Return the text of all domains' items, each once."""
        tables = [
            domain.item_table().drop("item").with_columns(raw_id=self._item_name(domain) + pl.col("raw_id"))
            for domain in domains
        ]
        names = list(dict.fromkeys(name for domain in domains for name in domain.attributes))
        joined = pl.concat(tables, how="diagonal").select("raw_id", pl.col(names).fill_null(""))
        items = joined.unique(maintain_order=True)
        twice = items.filter(pl.col("raw_id").is_duplicated())
        if not twice.is_empty():
            first, second = twice.filter(pl.col("raw_id") == twice["raw_id"][0]).rows()[:2]
            raise UserError(
                f"item {first[0]!r} is {first[1:]} in one domain and {second[1:]} in another: --prefix_items keeps "
                "the domains' items apart; or give their text alike"
            )
        return items


def _users(domain: Dataset) -> pl.Series:
    """Return the names of a domain's users in the corpus."""
    return domain.user_table()["raw_id"] + f"@{domain.name}"


def _check_users(domains: list[Dataset]) -> None:
    """Refuse two people of one name: `x@a` in the domain `b` and `x` in the domain `a@b`."""
    users = pl.concat(_users(domain) for domain in domains)
    if users.n_unique() < len(users):
        twice = users.filter(users.is_duplicated())[0]
        raise UserError(
            f"{twice!r} would be two users of different domains: prepare one of them under a --name without @"
        )


def _raw_ids(dataset: Dataset, table: str) -> set[str]:
    return set((dataset.item_table() if table == "items" else dataset.user_table())["raw_id"])
