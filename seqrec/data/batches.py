"""How rows are cut into batches, and in which order. Shapes: n rows, B of a batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from seqrec.basics.draws import RowDraws


class BatchKey(NamedTuple):
    """Key of a batch: its rows, and the seeds of its random choices."""

    rows: NDArray[np.int64]
    epoch: int
    number: int
    batch_rows: NDArray[np.int64] | None = None
    """Rows of the whole batch if several processes split it, else None."""
    counts: bool = True
    """False if this process repeats another's row, because the batch has fewer rows than there are processes."""

    @property
    def all_rows(self) -> NDArray[np.int64]:
        """The rows of the batch, over all processes."""
        return self.rows if self.batch_rows is None else self.batch_rows

    def generator(self, seed: int) -> np.random.Generator:
        """Return the generator of the whole batch; it depends on (seed, epoch, batch), the same in every process."""
        return np.random.default_rng((seed, self.epoch, self.number))

    def draws(self, seed: int, rows: NDArray[np.int64], purpose: str) -> RowDraws:
        """Return draws for some rows; they depend on (seed, epoch, row) alone, not on batch or process."""
        return RowDraws(seed, self.epoch, rows, purpose)


class RowSampler(Sampler[BatchKey]):
    """Cuts rows into batches, each once per epoch, in an order fixed by (seed, epoch).

    With `batch_size`, a batch has that number of rows. With `max_tokens`, rows of similar length share a batch of at
    most
    that size, so batches cost about the same and padding is small. Several processes take
    every n-th row of each batch. With `groups`, (n,) numbers, a batch of `batch_size` holds rows of one group alone.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        if (batch_size is None) == (max_tokens is None):
            raise ValueError("give one of batch_size and max_tokens")
        self.lengths, self.batch_size, self.max_tokens, self.groups = lengths, batch_size, max_tokens, groups
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        self._cut: tuple[int, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order of the next iteration; the Trainer calls it."""
        self.epoch = epoch

    def spread(self, rank: int, world_size: int) -> None:
        """Split every batch over `world_size` processes; this one has number `rank`."""
        self.rank, self.world_size = rank, world_size

    def batches(self) -> list[NDArray[np.int64]]:
        """Return the rows of this epoch's batches, over all processes."""
        if self._cut is None or self._cut[0] != self.epoch:
            self._cut = (self.epoch, self._cut_batches())
        return self._cut[1]

    def _cut_batches(self) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths)) if self.shuffle else np.arange(len(self.lengths))
        if self.batch_size is not None:
            if self.groups is None:
                return _slices(order, self.batch_size)
            apart = [order[self.groups[order] == group] for group in np.unique(self.groups)]
            batches = [batch for part in apart for batch in _slices(part, self.batch_size)]
            return [batches[i] for i in generator.permutation(len(batches))] if self.shuffle else batches
        assert self.max_tokens is not None
        order = order[np.argsort(self.lengths[order], kind="stable")]
        batches = []
        first = 0
        ends = np.cumsum(self.lengths[order])
        while first < len(order):
            before = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, before + self.max_tokens, side="right")), first + 1)
            batches.append(order[first:last])
            first = last
        if self.shuffle:
            batches = [batches[i] for i in generator.permutation(len(batches))]
        return batches

    def key(self, index: int) -> BatchKey:
        """Return this process's share of one of the epoch's batches."""
        rows = self.batches()[index]
        if self.world_size == 1:
            return BatchKey(rows, self.epoch, index)
        mine = rows[self.rank :: self.world_size]
        return BatchKey(mine if len(mine) else rows[:1], self.epoch, index, rows, counts=len(mine) > 0)

    def __iter__(self) -> Iterator[BatchKey]:
        return map(self.key, range(len(self.batches())))

    def __len__(self) -> int:
        return len(self.batches())


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return np.array_split(order, range(size, len(order), size)) if len(order) else []


class Rounds(Sampler[BatchKey]):
    """Splits a sampler's epochs into rounds of a fixed number of batches; the Trainer sees each round as one epoch.

    Thus a long epoch is validated and can be resumed within. A round may run over the end of an epoch.
    """

    def __init__(self, sampler: RowSampler, steps: int, num_epochs: int) -> None:
        self.sampler, self.steps, self.total = sampler, steps, num_epochs * len(sampler)
        self.round, self.seed, self.spread = 0, sampler.seed, sampler.spread

    @property
    def count(self) -> int:
        """Return the number of rounds; the last may be shorter."""
        return -(-self.total // self.steps)

    def set_epoch(self, epoch: int) -> None:
        """Set the round of the next iteration; the Trainer calls it."""
        self.round = epoch

    def __iter__(self) -> Iterator[BatchKey]:
        first = self.round * self.steps
        for position in range(first, min(first + self.steps, self.total)):
            epoch, index = divmod(position, len(self.sampler))
            self.sampler.set_epoch(epoch)
            yield self.sampler.key(index)

    def __len__(self) -> int:
        return min(self.steps, self.total - self.round * self.steps)
