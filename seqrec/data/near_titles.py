"""Titles of nearly the same words: one product under two names, or in two collections.

A title is the set of its words, and two are near if they share enough of all their words (Jaccard). The join is exact:
near sets have one of their rarest words in common, so only those are compared (Chaudhuri et al., 2006,
https://doi.org/10.1109/ICDE.2006.9).
"""

import polars as pl

APART = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
WORD = rf"[{APART}]|[\w--[{APART}]]+"
"""A Chinese, Japanese or Korean character, or a run of other letters and digits."""


def find_near_titles(titles: pl.Series, others: pl.Series, least: float) -> pl.DataFrame:
    """Return the pairs of a title and another one that are near: row, other (rows of each, from 0), share.

    Args:
        titles: Texts.
        others: Texts.
        least: In (0, 1]: the share of both titles' words that both have. Case and order do not count.
    """
    own, theirs = _words(titles), _words(others)
    frequency = pl.concat([own, theirs]).group_by("word").agg(frequency=pl.len())
    pairs = (
        _rarest(own, frequency, least)
        .join(_rarest(theirs, frequency, least), on="word", suffix="_other")
        .select("row", "words", other="row_other", others="words_other")
        .unique()
    )
    both = (
        pairs.join(own.select("row", "word"), on="row")
        .join(theirs.select("word", other="row"), on=["other", "word"])
        .group_by("row", "other", "words", "others")
        .agg(both=pl.len())
    )
    share = pl.col("both") / (pl.col("words") + pl.col("others") - pl.col("both"))
    return both.select("row", "other", share=share).filter(pl.col("share") >= least - 1e-9).sort("row", "other")


def _words(titles: pl.Series) -> pl.DataFrame:
    """Return each title's words: row, words (how many it has), word."""
    sets = titles.fill_null("").str.to_lowercase().str.extract_all(WORD).list.unique()
    frame = pl.DataFrame({"row": pl.int_range(len(titles), eager=True), "words": sets.list.len(), "word": sets})
    return frame.explode("word").drop_nulls("word")


def _rarest(words: pl.DataFrame, frequency: pl.DataFrame, least: float) -> pl.DataFrame:
    """Return so many of each title's rarest words that a near title has one of them."""
    needed = (pl.col("words") * least - 1e-9).ceil().cast(pl.Int64)
    return (
        words.join(frequency, on="word")
        .sort("row", "frequency", "word")
        .filter(pl.int_range(pl.len()).over("row") <= pl.col("words").cast(pl.Int64) - needed)
    )
