"""A later catalogue of the tiny dataset's shop."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from seqrec.data.dataset import Dataset
from seqrec.data.dataset_files import hash_item_ids
from tests.conftest import write_dataset

ORDER = np.random.default_rng(5).permutation(np.arange(1, 46))
"""(45,) items of the grown catalogue by their former numbers; 41 to 45 are new."""


def write_grown(tiny: Dataset, folder: Path) -> Path:
    """Write the tiny dataset with five more items, all in another order, and a new one at the end of each history."""
    number = np.concatenate([[0], np.argsort(ORDER) + 1])
    rows = [tiny.items[a:b].tolist() for a, b in zip(tiny.offsets, tiny.offsets[1:], strict=False)]
    histories = [number[[*row, 41 + user % 5]].tolist() for user, row in enumerate(rows)]
    write_dataset(folder, histories, 45)
    raw_ids = pl.Series("raw_id", [f"item-{k}" for k in ORDER])
    table = pl.read_parquet(folder / "items.parquet")
    table.with_columns(raw_ids, ("Title of " + raw_ids).alias("title")).write_parquet(folder / "items.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"item_ids_sha256": hash_item_ids(raw_ids.to_list())}))
    return folder
