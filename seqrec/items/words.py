"""Texts as the words in them, by TF-IDF. Shapes: N texts, V words, D width."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset

WORD = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
"""A Chinese, Japanese or Korean character, or a run of other letters and digits."""
OPTIONS: dict[str, Any] = {"token_pattern": WORD, "ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True}
"""Single words and pairs that occur in two texts or more; a word that occurs n times counts 1 + log n."""

SEED = 42
"""Of the randomized singular value decomposition."""


def read_texts(dataset: Dataset) -> list[str]:
    """Return the (N,) texts of a dataset's items, all attributes of one together.

    Raises:
        UserError: If it has none.
    """
    if not dataset.attributes:
        raise UserError(f"{dataset.path} has no texts of its items: prepare it with texts, or take another baseline")
    return (
        dataset.item_table()
        .select(pl.concat_str(pl.col(*dataset.attributes).fill_null(""), separator=" "))[:, 0]
        .to_list()
    )


def make_vectorizer() -> TfidfVectorizer:
    """Return what counts the words of texts."""
    return TfidfVectorizer(dtype=np.float32, **OPTIONS)


def count_words(collections: Sequence[list[str]]) -> tuple[list[Any], list[str]]:
    """Return TF-IDF of several collections of texts by the words of all, (N, V) sparse each, and the V words.

    Raises:
        UserError: If no word occurs twice.
    """
    try:
        vectorizer = make_vectorizer()
        whole = vectorizer.fit_transform([text for texts in collections for text in texts])
    except ValueError as error:
        raise UserError(f"the texts have no word in common ({error}): TF-IDF has nothing to compare them by") from error
    ends = np.cumsum([len(texts) for texts in collections])
    tables = [whole[end - len(texts) : end] for texts, end in zip(collections, ends, strict=True)]
    return tables, vectorizer.get_feature_names_out().tolist()


def project(tables: Sequence[Any], width: int) -> list[NDArray[np.float32]]:
    """Return the (N, V) sparse rows of several tables in D dimensions, of length 1 where there is a word.

    They are those that keep most of the rows of all: singular vectors, by a randomized method.

    Raises:
        UserError: If there are not more words and texts than dimensions.
    """
    whole = scipy.sparse.vstack(tables, "csr")
    if min(whole.shape) <= width:
        raise UserError(f"--width {width} must be less than the {whole.shape[0]} texts and {whole.shape[1]} words")
    reduced = normalize(TruncatedSVD(width, random_state=SEED).fit_transform(whole)).astype(np.float32)
    ends = np.cumsum([table.shape[0] for table in tables])
    return list(np.split(reduced, ends[:-1]))
