"""Tables of users and lists of their items, as the published code of Li et al. (2023) reads every dataset.

`behaviors.tsv` has the columns `userid` and `behaviors`, items separated by blanks, oldest first; a second table has
the items' ids and one text. Source: https://arxiv.org/abs/2305.11700.
"""

from pathlib import Path

import polars as pl

from seqrec.basics.errors import UserError
from seqrec.data.preparation import RawData
from seqrec.data.sources.checks import items_by_id
from seqrec.data.sources.reading import existing
from seqrec.data.sources.tables import LINE, require_columns, row_fault, scan_table

FILE = "behaviors.tsv"


def is_listed(folder: Path) -> bool:
    """Return whether a folder's behaviors.tsv is such a table, and not MIND's own, which has no header."""
    path = folder / FILE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return "userid" in file.readline(1 << 12).decode(errors="replace").rstrip("\r\n").split("\t")


def read_listed(folder: Path, items_file: str, item_column: str, text_column: str, scratch: Path) -> RawData:
    """Return the events of behaviors.tsv and the text of the items' table.

    Raises:
        UserError: If a file lacks a column, or a row its user or items.
    """
    path, items_path = existing(folder / FILE, FILE), existing(folder / items_file, items_file)
    rows = scan_table(path, "\t", scratch, quote=False)
    require_columns(rows, ["userid", "behaviors"], path)
    faulty = pl.col("userid").is_null() | pl.col("behaviors").is_null()
    if rows.select(faulty.any()).collect().item():
        where, row = row_fault(rows, path, faulty, ["userid", "behaviors"])
        raise UserError(f"{where}: expected a user and items, separated by a tab, got {row}")
    events = rows.select(user="userid", item=pl.col("behaviors").str.extract_all(r"[^ ]+")).explode("item")
    items = scan_table(items_path, "\t", scratch, quote=False)
    require_columns(items, [item_column, text_column], items_path)
    text = items_by_id(items.select(LINE, item_column, text_column), item_column, [text_column], items_path)
    return RawData(events.filter(pl.col("item").is_not_null()), text, origin=str(path))
