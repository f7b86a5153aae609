"""A prepared dataset with some items held out of training, to test a model on items unseen in training.

A share of the items that are somebody's last is drawn by the seed and taken out of every history but for the last
event, which leave-one-out tests; also from there, where too little else is left for a test. Such an item has no
interaction in training, and the table's slice for targets of that kind tells how well it is found among the whole
catalogue.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.dataset import find_dataset
from seqrec.data.preparation import Preparation, RawData


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold(Preparation):
    """A prepared dataset with items that only the test has."""

    kind: ClassVar[str] = "cold"

    dataset: str
    """Name of the prepared dataset."""
    share: float = 0.1
    """Share that becomes cold of the items that are the last of some user."""

    def __post_init__(self) -> None:
        Preparation.__post_init__(self)
        if not 0 < self.share < 1:
            raise UserError(f"--share must lie in (0, 1), got {self.share}")

    def read(self, scratch: Path) -> RawData:
        """Return the events that are left, and the items' text."""
        dataset = find_dataset(self.dataset, None, self.data_dir)
        table = dataset.item_table()
        last = np.zeros(len(dataset.items), dtype=bool)
        last[dataset.offsets[1:] - 1] = True
        candidates = np.unique(dataset.items[last])
        count = max(1, round(self.share * len(candidates)))
        cold = np.zeros(dataset.num_items + 1, dtype=bool)
        cold[np.random.default_rng(self.seed).choice(candidates, count, replace=False)] = True
        owner = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
        kept = last | ~cold[dataset.items]
        # Leave-one-out trains on the whole of a history that is shorter than 3.
        tested = np.bincount(owner[kept], minlength=dataset.num_users) >= 3
        kept &= tested[owner] | ~cold[dataset.items]
        users = dataset.user_table()["raw_id"]
        columns = {
            "user": users.gather(owner[kept]),
            "item": table["raw_id"].gather(np.asarray(dataset.items)[kept] - 1),
        }
        if dataset.timestamps is not None:
            columns["timestamp"] = pl.Series(np.asarray(dataset.timestamps)[kept])
        return RawData(pl.LazyFrame(columns), table.drop("item"), origin=str(dataset.path))
