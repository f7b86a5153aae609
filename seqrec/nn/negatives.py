"""Training negatives. Shapes: B sequences, T targets, K negatives, N items.

Shared negatives come from the batch's generator, a target's own negative from its sequence's draws: several processes
that split a batch draw the same as one.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.draws import RowDraws
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions

_TRIES = 100


class Negatives(NamedTuple):
    """Negatives for one batch."""

    items: Tensor
    """int64: (0,) for `ce`, (T,) one for each target for `bce`, else (K,) distinct items for all targets."""
    log_chance: Tensor
    """(K,) float32, logarithm of the chance that a batch's negatives hold the item; (0,) where the loss does not use
    it."""


def log_chance(share: NDArray[np.float64], draws: int, num_uniform: int, num_items: int) -> Tensor:
    """Return the logarithm of the chance that each item is drawn at least once.

    Args:
        share: (K,) probability of each item in one draw.
        draws: Number of independent draws.
        num_uniform: Number of distinct items drawn uniformly in addition.
        num_items: N.

    Returns:
        (K,) float32.
    """
    missed = (1 - share) ** draws * (1 - num_uniform / num_items)
    return torch.from_numpy(np.log(np.maximum(1 - missed, 1e-12)).astype(np.float32))


class NegativeSampler:
    """Draws the negatives of a batch."""

    def __init__(
        self, options: LossOptions, sequences: Histories, num_items: int, targets: Histories | None = None
    ) -> None:
        """Take the training sequences, and the parts of them that are targets, by which popularity is counted.

        A batch's targets are treated as independent draws by popularity; within one history they are not quite.
        """
        self.options, self.sequences, self.num_items = options, sequences, num_items
        self.share = np.zeros(num_items + 1)
        if options.needs_popularity:
            counts = (targets or sequences).item_counts(num_items)
            self.share = counts / counts.sum()
        self._ends = np.cumsum(self.share)

    def __call__(
        self,
        key: BatchKey,
        seed: int,
        rows: NDArray[np.int64],
        num_targets: NDArray[np.int64],
        all_targets: NDArray[np.int64],
    ) -> Negatives:
        """Return a batch's negatives.

        Args:
            key: Of the batch.
            seed: Of the run.
            rows: (B,) this process's sequences, in the order of its targets.
            num_targets: (B,) how many targets each gives; they sum to T.
            all_targets: Targets of the batch over all processes; read if `options.needs_targets`.
        """
        options, nothing = self.options, torch.zeros(0)
        if options.loss == "ce":
            return Negatives(nothing.long(), nothing)
        if options.loss == "bce":
            return Negatives(
                torch.from_numpy(self._unseen(key.draws(seed, rows, "negatives"), rows, num_targets)), nothing
            )
        generator = key.generator(seed)
        count = min(options.num_negatives, self.num_items)
        draws, num_uniform = 0, 0
        drawn: list[NDArray[np.int64]] = []
        if options.negatives in ("uniform", "mixed"):
            num_uniform = count
            drawn.append(generator.choice(self.num_items, count, replace=False) + 1)
        if options.negatives in ("in_batch", "mixed"):
            # A position's own target is not its negative: the other targets are the draws.
            draws = len(all_targets) - 1
            drawn.append(all_targets)
        if options.negatives == "popularity":
            draws = count
            drawn.append(np.searchsorted(self._ends, generator.random(count) * self._ends[-1], side="right"))
        items = drawn[0] if options.negatives == "uniform" else np.unique(np.concatenate(drawn))
        chance = log_chance(self.share[items], draws, num_uniform, self.num_items)
        return Negatives(torch.from_numpy(items), chance)

    def _unseen(self, draws: RowDraws, rows: NDArray[np.int64], num_targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (T,) items that the sequence of each target does not contain."""
        stride = self.num_items + 1
        owner = np.repeat(np.arange(len(rows)), num_targets)
        items, offsets = self.sequences.gather(rows, int(self.sequences.lengths[rows].max()))
        seen = np.repeat(np.arange(len(rows)), np.diff(offsets)) * stride + items
        seen = np.append(np.sort(seen), np.iinfo(np.int64).max)
        negatives = draws.integers(1, stride, num_targets)
        clashing = np.arange(len(negatives))
        # A user who has every item leaves nothing to draw: after enough tries the clash stays.
        for _ in range(_TRIES):
            pairs = owner[clashing] * stride + negatives[clashing]
            clashing = clashing[seen[np.searchsorted(seen, pairs)] == pairs]
            if not len(clashing):
                break
            negatives[clashing] = draws.integers(1, stride, np.bincount(owner[clashing], minlength=len(rows)))
        return negatives
