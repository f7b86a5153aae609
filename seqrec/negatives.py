"""Training negatives, drawn from a batch's own generator. Shapes: B sequences, T targets, K negatives, N items."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.dataset import Histories
from seqrec.losses import LossOptions

_TRIES = 100


class Negatives(NamedTuple):
    """What a batch's targets are told from."""

    items: Tensor
    """int64: (0,) for `ce`, (T,) one for each target for `bce`, else (K,) distinct items for all targets."""
    log_chance: Tensor
    """(K,) float32, logarithm of the chance that a batch's negatives hold the item; (0,) where no loss asks for it."""


def log_chance(share: NDArray[np.float64], draws: int, num_uniform: int, num_items: int) -> Tensor:
    """Return the logarithm of the chance that each item is drawn at least once.

    Args:
        share: (K,) probability of each item in one draw.
        draws: Independent ones.
        num_uniform: Distinct items that are drawn uniformly besides.
        num_items: N.

    Returns:
        (K,) float32.
    """
    missed = (1 - share) ** draws * (1 - num_uniform / num_items)
    return torch.from_numpy(np.log(np.maximum(1 - missed, 1e-12)).astype(np.float32))


class NegativeSampler:
    """Draws what a loss compares a batch's targets with."""

    def __init__(
        self, options: LossOptions, sequences: Histories, num_items: int, targets: Histories | None = None
    ) -> None:
        """Take the training sequences, and the stretches of them that are targets, by which popularity is counted.

        A batch's targets count as independent draws by popularity, which those of one history are not quite.
        """
        self.options, self.sequences, self.num_items = options, sequences, num_items
        self.share = np.zeros(num_items + 1)
        if options.needs_popularity:
            counts = (targets or sequences).item_counts(num_items)
            self.share = counts / counts.sum()
        self._ends = np.cumsum(self.share)

    def __call__(
        self,
        generator: np.random.Generator,
        rows: NDArray[np.int64],
        num_targets: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> Negatives:
        """Return a batch's negatives.

        Args:
            generator: Of this batch alone.
            rows: (B,) the batch's sequences.
            num_targets: (B,) how many targets each gives; they sum to T.
            targets: (T,) them.
        """
        options, nothing = self.options, torch.zeros(0)
        if options.loss == "ce":
            return Negatives(nothing.long(), nothing)
        if options.loss == "bce":
            return Negatives(torch.from_numpy(self._unseen(generator, rows, num_targets)), nothing)
        count = min(options.num_negatives, self.num_items)
        draws, num_uniform = 0, 0
        drawn: list[NDArray[np.int64]] = []
        if options.negatives in ("uniform", "mixed"):
            num_uniform = count
            drawn.append(generator.choice(self.num_items, count, replace=False) + 1)
        if options.negatives in ("in_batch", "mixed"):
            # A position's own target is no negative of it: the others are the draws.
            draws = len(targets) - 1
            drawn.append(targets)
        if options.negatives == "popularity":
            draws = count
            drawn.append(np.searchsorted(self._ends, generator.random(count) * self._ends[-1], side="right"))
        items = drawn[0] if options.negatives == "uniform" else np.unique(np.concatenate(drawn))
        chance = log_chance(self.share[items], draws, num_uniform, self.num_items)
        return Negatives(torch.from_numpy(items), chance)

    def _unseen(
        self, generator: np.random.Generator, rows: NDArray[np.int64], num_targets: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return (T,) items that the sequence of each target does not contain."""
        stride = self.num_items + 1
        owner = np.repeat(np.arange(len(rows)), num_targets) * stride
        items, offsets = self.sequences.gather(rows, int(self.sequences.lengths[rows].max()))
        seen = np.repeat(np.arange(len(rows)), np.diff(offsets)) * stride + items
        negatives = generator.integers(1, stride, len(owner))
        # Who has everything leaves nothing to draw: after enough tries the clash stays.
        for _ in range(_TRIES):
            clash = np.flatnonzero(np.isin(owner + negatives, seen))
            if not len(clash):
                break
            negatives[clash] = generator.integers(1, stride, len(clash))
        return negatives
