"""What every recommender does the same way: hold-out evaluation inside a Lightning module, and its batches.

Shapes: B users, D width, N items, K sampled negatives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqrec.candidates import sample_negatives
from seqrec.dataset import Dataset as PreparedDataset
from seqrec.dataset import Histories, Split, SplitName, TimeTarget, global_time_split, leave_one_out
from seqrec.errors import UserError
from seqrec.evaluation import RankRecorder, rank_targets, seen_pairs
from seqrec.metrics import KS
from seqrec.ragged import BatchKey, Rounds, RowSampler
from seqrec.sharding import FullyShardedStrategy

CANDIDATE_SEED = 98765


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is held out and how it is ranked; the same for every family, and never a matter of the training loss."""

    split: SplitName = "leave_one_out"
    """What is held out: each user's last two items, or everything after one moment (global_time)."""
    split_quantile: float = 0.9
    """Share of the events before the moment of global_time, and of those before the moment of its validation."""
    time_target: TimeTarget = "last"
    """Which event of a user's after that moment is the target; with successive each is in turn, and a user counts by
    the mean over them."""
    sample_size: int = -1
    """Negatives sampled per user to rank against; -1 ranks the whole catalogue."""
    filter_seen: bool = False
    """Leave out items of the user's history as candidates (full ranking only)."""
    candidate_seed: int = CANDIDATE_SEED
    """Seed of the sampled negatives: they depend on it and the user alone."""
    metric_ks: tuple[int, ...] = KS
    """Cutoffs of NDCG@k and Recall@k; 10 is one of them."""

    def __post_init__(self) -> None:
        if self.sample_size == 0 or self.sample_size < -1:
            raise UserError(f"--sample_size must be K > 0 negatives, or -1 for all items, got {self.sample_size}")
        if self.sample_size < 0 and self.candidate_seed != CANDIDATE_SEED:
            raise UserError("--candidate_seed is for --sample_size K: the whole catalogue is not drawn")
        if 10 not in self.metric_ks or min(self.metric_ks) < 1:
            raise UserError(
                f"--metric_ks must be at least 1 and hold 10, which tables are made of, got {self.metric_ks}"
            )
        if self.sample_size > 0 and self.filter_seen:
            raise UserError("--filter_seen is for full ranking: sampled negatives never contain seen items")
        if not 0 < self.split_quantile < 1:
            raise UserError(f"--split_quantile must lie in (0, 1), got {self.split_quantile}")
        if self.split == "leave_one_out" and (self.split_quantile, self.time_target) != (0.9, "last"):
            raise UserError("--split_quantile and --time_target are for --split global_time")

    def hold_out(self, dataset: PreparedDataset) -> Split:
        """Return the split of a dataset."""
        if self.split == "leave_one_out":
            return leave_one_out(dataset)
        return global_time_split(dataset, self.split_quantile, self.time_target)

    @property
    def several_targets(self) -> bool:
        """Whether a user may have more than one."""
        return self.time_target == "successive"

    @property
    def record(self) -> dict[str, Any]:
        """Return all that decides a run's ranks, as the run keeps it."""
        time = {"split_quantile": self.split_quantile, "time_target": self.time_target}
        return {
            "split": self.split,
            **(time if self.split == "global_time" else {}),
            "sample_size": self.sample_size,
            "filter_seen": self.filter_seen,
            **({"candidate_seed": self.candidate_seed} if self.sample_size > 0 else {}),
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Protocol":
        """Return the protocol that a run's record tells of."""
        names = ("split", "split_quantile", "time_target", "sample_size", "filter_seen", "candidate_seed")
        return cls(**{name: record[name] for name in names if name in record})


class HeldOut(NamedTuple):
    """One evaluation batch."""

    inputs: Any
    """What the family's `user_vectors` takes."""
    rows: Tensor
    """(B,) int64, of the view."""
    targets: Tensor
    negatives: Tensor | None
    seen: tuple[Tensor, Tensor] | None


class HeldOutDataset(Dataset[HeldOut]):
    """Evaluation batches of a view: the family makes the inputs, everything else is the same for all."""

    def __init__(
        self,
        dataset: PreparedDataset,
        histories: Histories,
        protocol: Protocol,
        make_inputs: Callable[[Histories, NDArray[np.int64]], Any],
    ) -> None:
        self.dataset, self.histories, self.protocol, self.make_inputs = dataset, histories, protocol, make_inputs
        self.targets = histories.targets

    def __getitem__(self, key: BatchKey) -> HeldOut:
        rows, protocol = key.rows, self.protocol
        negatives = None
        if protocol.sample_size > 0:
            users = self.histories.users[rows]
            drawn = sample_negatives(self.dataset, users, protocol.sample_size, protocol.candidate_seed)
            negatives = torch.from_numpy(drawn)
        return HeldOut(
            inputs=self.make_inputs(self.histories, rows),
            rows=torch.from_numpy(rows),
            targets=torch.from_numpy(self.targets[rows]),
            negatives=negatives,
            seen=seen_pairs(self.histories, rows) if protocol.filter_seen else None,
        )


def share_of_mean(mean: Tensor, count: int) -> tuple[Tensor, int]:
    """Return what a process adds to the mean over all processes, and how many that mean is over.

    Trainers average gradients over processes whatever each has read: of losses that are scaled so, the average is the
    loss of the whole batch. With one process, the mean is returned as it is.

    Args:
        mean: () over `count` targets of this process; with 0 it counts nothing.
        count: How many targets it is over.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mean, count
    total = torch.tensor(count, device=mean.device)
    dist.all_reduce(total)
    return mean * (count * dist.get_world_size() / int(total)), int(total)


class NextItemModule(pl.LightningModule):
    """A recommender whose score is the dot product of a user vector and an item vector.

    A family implements `user_vectors`, `item_vectors` and `training_step`. Validation logs `valid/<metric>`, test keeps
    each target's rank in `recorder`.
    """

    def __init__(self, metric_ks: tuple[int, ...] = KS) -> None:
        super().__init__()
        self.recorder = RankRecorder(metric_ks)
        self.results: dict[str, float] = {}
        self._catalogue: Tensor | None = None

    def user_vectors(self, inputs: Any) -> Tensor:
        """Return what scores the next item of each history, (B, D)."""
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """Return (N+1, D), row i for item i; computed once per evaluation."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Share the weights out over the processes where that is the strategy."""
        if isinstance(self.trainer.strategy, FullyShardedStrategy):
            mesh = self.trainer.strategy.device_mesh["data_parallel"]
            FullyShardedStrategy.share_out(self, mesh, ("training_step", "user_vectors", "item_vectors"))

    def _start(self, loader: Any) -> None:
        self.recorder.expect(loader.dataset.histories.users)
        with torch.no_grad():
            self._catalogue = self.item_vectors().float()

    def _rank(self, batch: HeldOut) -> None:
        assert self._catalogue is not None
        users = self.user_vectors(batch.inputs).float()
        ranking = rank_targets(users, self._catalogue, batch.targets, negatives=batch.negatives, seen=batch.seen)
        self.recorder.add(batch.rows, ranking)

    def _finish(self, stage: str) -> None:
        self.results = self.recorder.compute(self.device)
        self._catalogue = None
        self.log_dict({f"{stage}/{name}": value for name, value in self.results.items()}, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Compute the item vectors once."""
        self._start(self.trainer.val_dataloaders)

    def validation_step(self, batch: HeldOut) -> None:
        """Rank one batch of users."""
        self._rank(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all users."""
        self._finish("valid")

    def on_test_epoch_start(self) -> None:
        """Compute the item vectors once."""
        self._start(self.trainer.test_dataloaders)

    def test_step(self, batch: HeldOut) -> None:
        """Rank one batch of users."""
        self._rank(batch)

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all users."""
        self._finish("test")


class Recommender(NamedTuple):
    """A trained model for use; a family's `finetune.restore` makes one."""

    module: NextItemModule
    read: Callable[[Histories, NDArray[np.int64]], Any]
    """From a view and (B,) rows: what `user_vectors` takes."""
    count_tokens: Callable[[Histories], NDArray[np.int64]]
    """From a view: (n,) how much of each history is read."""


class Grown(NamedTuple):
    """What a trained model comes from that is to serve another catalogue, such as a later one of the same shop."""

    trained_on: PreparedDataset
    run: Path
    """Its folder."""


class BatchModule(pl.LightningDataModule):
    """Training batches of a family beside evaluation batches of a split."""

    def __init__(
        self,
        dataset: PreparedDataset,
        split: Split,
        protocol: Protocol,
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
            stage: HeldOutDataset(dataset, histories, protocol, make_inputs)
            for stage, histories in (("valid", valid), ("test", split.test))
        }

    def _loader(self, data: Dataset[Any], sampler: RowSampler | Rounds) -> DataLoader[Any]:
        if self.trainer is not None:
            sampler.spread(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(
            data,
            batch_size=None,
            sampler=sampler,
            generator=torch.Generator(),  # its own, so that making an iterator leaves the one of dropout alone
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
