"""A family's training batches and a split's evaluation batches. Shapes: B users, K sampled negatives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey, Rounds, RowSampler
from seqrec.data.candidate_files import load_candidates
from seqrec.data.dataset import Dataset as PreparedDataset
from seqrec.data.dataset import Histories
from seqrec.data.fresh import FreshItems
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.splits import Split
from seqrec.evaluation.candidates import sample_negatives
from seqrec.evaluation.ranking import seen_pairs

EVAL_EVENTS = 16_384
"""Events per evaluation batch."""


class HeldOut(NamedTuple):
    """One evaluation batch."""

    inputs: Any
    """Argument of the family's `user_vectors`."""
    rows: Tensor
    """(B,) int64 rows of the view."""
    targets: Tensor
    negatives: Tensor | None
    """(B, K) int64 items, 0 where a user has fewer."""
    left_out: tuple[tuple[Tensor, Tensor] | None, ...] = (None,)
    """For each way to rank, the pairs of a row and an item that are no candidates."""


class HeldOutDataset(Dataset[HeldOut]):
    """Evaluation batches of a view: the family makes the inputs, the rest is the same for all families."""

    def __init__(
        self,
        dataset: PreparedDataset,
        histories: Histories,
        protocol: EvaluationProtocol,
        make_inputs: Callable[[Histories, NDArray[np.int64]], Any],
        both_ways: bool = False,
    ) -> None:
        """Take a view.

        Args:
            dataset: The catalogue.
            histories: The view.
            protocol: What is ranked.
            make_inputs: Maps the view and (B,) rows to the argument of the family's `user_vectors`.
            both_ways: Rank a second time by `protocol.other`, if there is one.
        """
        self.dataset, self.histories, self.protocol, self.make_inputs = dataset, histories, protocol, make_inputs
        self.other = protocol.other if both_ways else None
        self.targets = histories.targets
        self.fresh = None if protocol.fresh_days is None else FreshItems.of(dataset, protocol.fresh_days)
        self.given = None if protocol.candidates is None else load_candidates(protocol.candidates, dataset)
        if self.given is not None and (absent := histories.users[self.given[histories.users, 0] == 0]).size:
            user = dataset.user_table()["raw_id"][int(absent[0])]
            raise UserError(f"{protocol.candidates} lacks {len(absent):,} users to rank, such as {user!r}")

    @property
    def users(self) -> NDArray[np.int64]:
        """(n,) user of each target."""
        return self.histories.users

    def __getitem__(self, key: BatchKey) -> HeldOut:
        rows, protocol = key.rows, self.protocol
        negatives, users = None, self.histories.users[rows]
        if self.given is not None:
            negatives = torch.from_numpy(self.given[users].astype(np.int64))
        elif self.fresh is not None:
            moments = self.dataset.moments(self.histories.select(rows))
            negatives = torch.from_numpy(self.fresh.others(users, moments))
        elif protocol.sample_size > 0:
            drawn = sample_negatives(self.dataset, users, protocol.sample_size, protocol.candidate_seed)
            negatives = torch.from_numpy(drawn)
        ways = [protocol] if self.other is None else [protocol, self.other]
        pairs = seen_pairs(self.histories, rows) if any(way.filter_seen for way in ways) else None
        return HeldOut(
            inputs=self.make_inputs(self.histories, rows),
            rows=torch.from_numpy(rows),
            targets=torch.from_numpy(self.targets[rows]),
            negatives=negatives,
            left_out=tuple(pairs if way.filter_seen else None for way in ways),
        )


class BatchModule(lightning.LightningDataModule):
    """A family's training batches and a split's evaluation batches, for a Trainer."""

    def __init__(
        self,
        dataset: PreparedDataset,
        split: Split,
        protocol: EvaluationProtocol,
        train: Dataset[Any],
        train_sampler: RowSampler | Rounds,
        make_inputs: Callable[[Histories, NDArray[np.int64]], Any],
        *,
        eval_lengths: Callable[[Histories], NDArray[np.int64]],
        eval_max_tokens: int,
        valid_users: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        valid = split.valid
        everyone = np.unique(valid.users)
        if valid_users is not None and valid_users < len(everyone):
            chosen = np.random.default_rng(train_sampler.seed).choice(everyone, valid_users, replace=False)
            valid = valid.select(np.isin(valid.users, chosen))
        self.train, self.train_sampler, self.num_workers = train, train_sampler, num_workers
        self.eval_lengths, self.eval_max_tokens = eval_lengths, eval_max_tokens
        self.held_out = {
            stage: HeldOutDataset(dataset, histories, protocol, make_inputs, both_ways=stage == "test")
            for stage, histories in (("valid", valid), ("test", split.test))
        }

    def _loader(self, data: Dataset[Any], sampler: RowSampler | Rounds) -> DataLoader[Any]:
        if self.trainer is not None:
            sampler.spread(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(
            data,
            batch_size=None,
            sampler=sampler,
            generator=torch.Generator(),  # a separate one, so that an iterator does not draw from dropout's
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _held_out_loader(self, stage: str) -> DataLoader[Any]:
        data = self.held_out[stage]
        sampler = RowSampler(self.eval_lengths(data.histories), max_tokens=self.eval_max_tokens, shuffle=False)
        return self._loader(data, sampler)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the family's training batches."""
        return self._loader(self.train, self.train_sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation users, in batches."""
        return self._held_out_loader("valid")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test users, in batches."""
        return self._held_out_loader("test")


def history_batches(module: Any, config: Any, dataset: PreparedDataset, split: Split, train: Any) -> BatchModule:
    """Return a run's batches for a module that reads events.

    Args:
        module: With `make_inputs` and `count_events`.
        config: A family's flags, with `batch_size`, `training` and `protocol`.
        dataset: The catalogue.
        split: Its views.
        train: Training batches by `BatchKey`, with (n,) `lengths` of the sequences.
    """
    return BatchModule(
        dataset,
        split,
        config.protocol,
        train,
        RowSampler(train.lengths, batch_size=config.batch_size, shuffle=True, seed=config.training.seed),
        module.make_inputs,
        eval_lengths=module.count_events,
        eval_max_tokens=EVAL_EVENTS,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )
