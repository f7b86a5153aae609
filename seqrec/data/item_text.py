"""The items' texts: chosen and cleaned; items without text dropped or named by their id. Letter: N items."""

import html
import logging
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError

log = logging.getLogger(__name__)
MISSING = r"(?i)^(null|nan|none)$"
"""Texts that mean no text."""
MISREAD = r"[ÂÃ][\u0080-\u00bf]|â€"
"""Characters of UTF-8 that was read as latin-1 or Windows-1252."""


def item_text(
    items: pl.DataFrame, text: pl.DataFrame | None, attributes: tuple[str, ...], raw: bool = False
) -> pl.DataFrame:
    """Return raw_id and the attributes, cleaned unless they stay `raw`, "" where missing, one row per row of items.

    Raises:
        UserError: If an attribute is not one of the source's, or has the name of a column of items.parquet.
    """
    offered = [] if text is None else [name for name in text.columns if name != "raw_id"]
    unknown = [name for name in attributes if name not in offered]
    if unknown:
        raise UserError(f"--attributes {','.join(unknown)}: the source offers {', '.join(offered) or 'no text'}")
    wanted = list(attributes) or offered
    taken = [name for name in wanted if name in ("item", "raw_id")]
    if taken:
        raise UserError(
            f"the source has an attribute called {taken[0]!r}, which is the name of a dataset's own column: rename it, "
            "or name others by --attributes"
        )
    if text is None:
        return items.select("raw_id")
    joined = items.select("raw_id").join(text, on="raw_id", how="left", maintain_order="left")
    if raw:
        return joined.select("raw_id", *(pl.col(name).cast(pl.String).fill_null("") for name in wanted))
    result = clean_text(joined.select("raw_id", *wanted), wanted)
    for name in wanted:
        misread = result[name].filter(result[name].str.contains(MISREAD))
        if len(misread):
            log.warning(
                "%s of %s items have a %s such as %r: UTF-8 that was read as another encoding; was that done before?",
                *(f"{len(misread):,}", f"{len(result):,}", name, misread[0][:80]),
            )
    return result


def has_text(text: pl.DataFrame) -> NDArray[np.bool_]:
    """Return (N,) bool, whether an item has any; all True when the source offers no attribute at all."""
    attributes = text.columns[1:]
    if not attributes:
        return np.ones(len(text), dtype=bool)
    return text.select(pl.any_horizontal(pl.col(name) != "" for name in attributes)).to_series().to_numpy()


def fill_missing(text: pl.DataFrame, on_missing_text: str) -> pl.DataFrame:
    """Return the (N, 1 + attributes) text of the items that are kept; on_missing_text is error, drop or item_id.

    Raises:
        UserError: If it is error and an item has no text.
    """
    missing = text.filter(pl.Series(values=~has_text(text)))["raw_id"]
    if not missing.is_empty() and on_missing_text == "error":
        raise UserError(
            f"{len(missing):,} of {len(text):,} items have no text in {', '.join(text.columns[1:])}, for example "
            f"{', '.join(missing.head(3))}. Choose: --on_missing_text drop (leave them out), --on_missing_text "
            "item_id (use the id as text), or mend the items and keep --on_missing_text error"
        )
    if on_missing_text != "item_id":
        return text
    if len(text.columns) == 1:
        return text.with_columns(pl.col("raw_id").alias("title"))
    empty = pl.col("raw_id").is_in(missing.implode())
    return text.with_columns(pl.when(empty).then("raw_id").otherwise(text.columns[1]).alias(text.columns[1]))


def clean_text(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the frame with clean str columns: no tags, entities, doubled or outer whitespace, nulls.

    Entities are resolved (`&amp;amp;` too), tags and comments become a space. A text that is only null, nan or None, or
    a piece of a page's script as some Amazon titles are, becomes "".
    """
    return frame.with_columns(_clean(pl.col(name).cast(pl.String)).alias(name) for name in columns)


def _clean(text: pl.Expr) -> pl.Expr:
    entity = r"&(#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]+);"
    plain = pl.when(text.str.contains(entity)).then(_unescape(text)).otherwise(text)
    tag = r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>"
    spaced = plain.str.replace_all(tag, " ").str.replace_all(r"[\s\x00-\x1f\x7f\u00a0\u200b]+", " ")
    text = spaced.str.strip_chars()
    script = text.str.contains("getTime()", literal=True)
    return pl.when(text.is_null() | script | text.str.contains(MISSING)).then(pl.lit("")).otherwise(text)


def _unescape(text: pl.Expr) -> pl.Expr:
    # Only texts with an entity come here: the table of entities is Python's, which is slow.
    return text.map_batches(
        lambda values: pl.Series(values.name, [_resolve(value) for value in values], dtype=pl.String),
        return_dtype=pl.String,
    )


def _resolve(text: str | None) -> str | None:
    if text is None or "&" not in text:
        return text
    return html.unescape(html.unescape(text))
