"""Cleaning of item text as shops publish it, column by column."""

import html
from collections.abc import Sequence

import polars as pl

MISSING = r"(?i)^(null|nan|none)$"
"""Text that stands for no text."""


def clean_text(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the frame with clean str columns: no tags, entities, doubled or outer whitespace, nulls.

    Entities are resolved (`&amp;amp;` too), tags and comments become a space, and a text that only says null, nan
    or None, or is a scrap of a page's script as some Amazon titles are, becomes "".
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
    # The standard table of entities lives in Python; only texts that hold one come here.
    return text.map_batches(
        lambda values: pl.Series(values.name, [_resolve(value) for value in values], dtype=pl.String),
        return_dtype=pl.String,
    )


def _resolve(text: str | None) -> str | None:
    if text is None or "&" not in text:
        return text
    return html.unescape(html.unescape(text))
