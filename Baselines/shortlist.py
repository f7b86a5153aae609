"""The best items of a baseline, which a language model ranks anew. Shapes: n users, K places, C items on some list."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from Baselines.ask_options import Config
from Baselines.counting import count_baseline
from Baselines.options import Config as BaselineConfig
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.splits import Split
from seqrec.evaluation.ranking import Ranking
from seqrec.training.batches import HeldOutDataset

USERS = 256
"""Users whose lists are made at a time."""


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The lists of n users, for each way to rank: by the protocol, and by its other way."""

    items: list[NDArray[np.int64]]
    """(n, K), 0 where there are fewer."""
    before: list[Ranking]
    """Of the n targets among all items, by the baseline."""
    candidates: NDArray[np.int64]
    """(n, C) items on one of the lists, each once, 0 where there are fewer."""

    def rank(self, scores: NDArray[np.float64], targets: NDArray[np.int64]) -> list[Ranking]:
        """Return the ranks of (n,) targets in each way: by (n, C) scores on the list, and else as the baseline ranks.

        A target is on a list if the baseline scores fewer than K others as high: ties count against it there, too.
        """
        own = np.where(self.candidates == targets[:, None], scores, -np.inf).max(axis=1, keepdims=True)
        rankings = []
        for items, before in zip(self.items, self.before, strict=True):
            others = (self.candidates[:, :, None] == items[:, None, :]).any(axis=2)
            others &= (self.candidates > 0) & (self.candidates != targets[:, None])
            on_list = before.ranks < items.shape[1]
            ranks = torch.from_numpy((others & (scores >= own)).sum(axis=1))
            tied = torch.from_numpy((others & (scores == own)).any(axis=1))
            ranks, tied = torch.where(on_list, ranks, before.ranks), torch.where(on_list, tied, before.tied)
            rankings.append(Ranking(ranks, before.num_candidates, tied))
        return rankings


@torch.inference_mode()
def make_shortlist(config: Config, dataset: Dataset, split: Split, test: Histories) -> Shortlist:
    """Return the lists of the users of `test`, which are some of a split's."""
    assert config.shortlist is not None
    options = BaselineConfig(
        baseline=config.shortlist, protocol=config.protocol, progress_bar=config.progress_bar, dataset=dataset.name
    )
    ranking, _, _ = count_baseline(options, dataset, split)
    module, catalogue = ranking.module, ranking.module.item_vectors()
    held_out = HeldOutDataset(dataset, test, config.protocol, ranking.make_inputs, both_ways=True)
    lists, before = [], []
    for start in range(0, len(test), USERS):
        batch = held_out[BatchKey(np.arange(start, min(start + USERS, len(test))), epoch=0, number=0)]
        before.append(module.rank(batch, catalogue))
        found = []
        for seen in batch.left_out:
            if seen is not None:  # a target stays a candidate
                is_other = seen[1] != batch.targets[seen[0]]
                seen = seen[0][is_other], seen[1][is_other]
            found.append(module.best(batch.inputs, catalogue, config.shortlist_size, seen)[0].numpy())
        lists.append(found)
    items = [np.concatenate(parts) for parts in zip(*lists, strict=True)]
    joined = [
        Ranking(*(torch.cat([getattr(part, name) for part in parts]) for name in ("ranks", "num_candidates", "tied")))
        for parts in zip(*before, strict=True)
    ]
    return Shortlist(items, joined, _each_once(np.concatenate(items, axis=1)))


def _each_once(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each row's numbers above 0 in ascending order, each once, with 0 before them."""
    items = np.sort(items, axis=1)
    items[:, 1:][items[:, 1:] == items[:, :-1]] = 0
    items = np.sort(items, axis=1)
    return items[:, (items > 0).any(axis=0)]
