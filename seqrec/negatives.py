"""Training negatives, drawn from a batch's own generator. Shapes: T targets, K negatives, N items."""

import numpy as np
from numpy.typing import NDArray

from seqrec.dataset import Histories
from seqrec.losses import Loss

_TRIES = 100


def draw_negatives(
    loss: Loss,
    generator: np.random.Generator,
    sequences: Histories,
    rows: NDArray[np.int64],
    num_targets: NDArray[np.int64],
    num_items: int,
    num_negatives: int,
) -> NDArray[np.int64]:
    """Return what a loss compares a batch's targets with.

    Args:
        loss: Which one.
        generator: Of this batch alone.
        sequences: The training sequences.
        rows: (B,) those of the batch.
        num_targets: (B,) how many targets each gives; they sum to T.
        num_items: N.
        num_negatives: K, of a sampled softmax.

    Returns:
        (0,) for the full softmax; (K,) distinct items for a sampled softmax; for binary cross-entropy (T,) items that
        the sequence of each target does not contain.
    """
    if loss == "ce":
        return np.zeros(0, dtype=np.int64)
    if loss == "sampled_softmax":
        return generator.choice(num_items, min(num_negatives, num_items), replace=False) + 1
    stride = num_items + 1
    owner = np.repeat(np.arange(len(rows)), num_targets) * stride
    items, offsets = sequences.gather(rows, int(sequences.lengths[rows].max()))
    seen = np.repeat(np.arange(len(rows)), np.diff(offsets)) * stride + items
    negatives = generator.integers(1, stride, len(owner))
    # Who has everything leaves nothing to draw: after enough tries the clash stays.
    for _ in range(_TRIES):
        clash = np.flatnonzero(np.isin(owner + negatives, seen))
        if not len(clash):
            break
        negatives[clash] = generator.integers(1, stride, len(clash))
    return negatives
