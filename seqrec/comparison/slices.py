"""Slices of the tested users, by training count of the target and by length of the history.

Shapes: U users, S slices.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from seqrec.comparison.results import FinishedRun
from seqrec.data.dataset import Dataset
from seqrec.data.protocol import EvaluationProtocol

TARGET_BINS = (0, 1, 6, 21)
"""Lower ends of the bins of a target's training count: 0, 1-5, 6-20, more."""
MAX_LENGTH_BINS = 5
MIN_TAIL_SHARE = 0.01
"""The bins of history length double (1-3, 4-7, ...); an outer bin with fewer of the users joins the next."""


def cut_users(run: FinishedRun, dataset: Dataset) -> tuple[list[tuple[str, tuple[str, ...], NDArray[np.int64]]], str]:
    """Return the slicings of the tested users (title, S labels, slice of each (U,)), or why there are none.

    Args:
        run: Any run of the protocol.
        dataset: The one that the run was made on.
    """
    protocol = run.protocol
    if run.owners is not None:
        return [], "no slices: a user's several targets lie in different ones"
    split = EvaluationProtocol.of(protocol).hold_out(dataset)
    test = split.test
    if "drawn_users" in protocol:
        test = test.select(np.isin(test.users, run.users))
    order = np.argsort(test.users, kind="stable")
    if not np.array_equal(test.users[order], run.users):
        return [], f"no slices: the runs tested other users than {protocol['split']} of {dataset.name} gives"
    counts = split.train.item_counts(dataset.num_items)[test.targets[order]]
    lengths = test.lengths[order]
    cuts = []
    for title, numbers, lower in (
        ("target item's interactions in training", counts, np.array(TARGET_BINS)),
        ("user's history length", lengths, length_bins(lengths)),
    ):
        where = np.searchsorted(lower, numbers, side="right") - 1
        cuts.append((title, _label_bins(lower), where))
    return cuts, ""


def length_bins(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ascending lower ends of bins 1-3, 4-7, 8-15, ..., thin outer bins joined with the next.

    Args:
        lengths: (U,) at least 0.
    """
    ends = [int(min(1, lengths.min())), *(2**i for i in range(2, int(lengths.max()).bit_length()))]
    lower = [end for end, following in itertools.pairwise([*ends, math.inf]) if following > lengths.min()]
    users = np.bincount(np.searchsorted(lower, lengths, side="right") - 1, minlength=len(lower)).tolist()
    while len(lower) > 1:
        first_is_thinner = users[0] <= users[-1]
        thinnest = users[0] if first_is_thinner else users[-1]
        if len(lower) <= MAX_LENGTH_BINS and thinnest >= MIN_TAIL_SHARE * len(lengths):
            break
        if first_is_thinner:
            users[:2], lower[:2] = [users[0] + users[1]], [lower[0]]
        else:
            users[-2:], lower[-1:] = [users[-2] + users[-1]], []
    return np.array(lower)


def _label_bins(lower: NDArray[np.int64]) -> tuple[str, ...]:
    """Return "0", "1-5", ..., ">20" from the lower ends 0, 1, ..., 21."""
    inner = [f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(lower.tolist())]
    return (*inner, f">{lower[-1] - 1}")
