"""The base of all recommenders: hold-out evaluation in a Lightning module.

Shapes: B users, D width, N items, K sampled negatives.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset as PreparedDataset
from seqrec.data.dataset import Histories
from seqrec.data.protocol import KS
from seqrec.evaluation.ranking import Ranking, leave_out, rank_scores, rank_targets, top_items, top_scores
from seqrec.evaluation.recorder import RankRecorder
from seqrec.nn.losses import Extra
from seqrec.nn.repeats import Had
from seqrec.training.batches import HeldOut
from seqrec.training.sharding import shard

REPEAT_RATE = 10
"""Learning rate of the score of what a history has, in rates of the rest: alone it has far to go."""


def share_of_mean(mean: Tensor, count: int) -> tuple[Tensor, int]:
    """Return this process's share of the mean over all processes, and the number of targets of all.

    Trainers average gradients over processes, however many targets each has. The average of losses scaled like this is
    the loss of the whole batch. With one process, the mean is returned as it is.

    Args:
        mean: () over `count` targets of this process; with 0 it counts nothing.
        count: Number of these targets.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mean, count
    total = torch.tensor(count, device=mean.device)
    dist.all_reduce(total)
    return mean * (count * dist.get_world_size() / int(total)), int(total)


class NextItemModule(lightning.LightningModule):
    """A recommender whose score is the dot product of a user vector and an item vector.

    A family implements `user_vectors`, `item_vectors` and `training_step`. Validation logs `valid/<metric>`, test keeps
    each target's rank in `recorder`. One that can be exported has `read_rectangle`, `event_vectors` and `most_events`.
    """

    def __init__(self, metric_ks: tuple[int, ...] = KS) -> None:
        super().__init__()
        self.recorder = RankRecorder(metric_ks)
        self.results: dict[str, float] = {}
        self.other_recorder = RankRecorder(metric_ks)
        self.other_results: dict[str, float] | None = None
        """Of the protocol's other way to rank, if the last evaluation had one."""
        self.repeat_score: nn.Parameter | None = None
        """(1,) what is added to the score of an item that the history has, if it is learned."""
        self._catalogue: Tensor | None = None

    def user_vectors(self, inputs: Any) -> Tensor:
        """Return the user vectors, (B, D)."""
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """Return (N+1, D), row i for item i; computed once per evaluation."""
        raise NotImplementedError

    @property
    def most_events(self) -> int:
        """Number of the latest events that `read_rectangle` takes."""
        return 1

    def event_vectors(self) -> Tensor:
        """Return what `read_rectangle` takes of each item, (N+1, V): by default its vector."""
        return self.item_vectors()

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors, (B, D), of histories as a graph reads them that is exported.

        Args:
            vectors: (B, L, V) of a history's items, the oldest first, and of nothing after them.
            lengths: (B,) int64 from 1 to L.

        Raises:
            UserError: If the model reads more of a history than its items.
        """
        raise UserError(
            f"{type(self).__name__} reads more than the items of a history: it is served as a run, not exported"
        )

    def choose_classes(self, batch: Any, classes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the loss of a training batch tells apart, (R, D), and the (T,) targets' rows: by default these.

        Args:
            batch: The batch.
            classes: (R, D) item vectors.
            targets: (T,) int64 rows of them.
        """
        return classes, targets

    def candidates(self) -> Tensor:
        """Return the vectors of what evaluation ranks, (N+1, D): those of the items."""
        return self.item_vectors()

    def extra_scores(self, inputs: Any) -> Extra | None:
        """Return what is added to some products with the user vectors of `inputs`, which then tell what they have."""
        if self.repeat_score is None:
            return None
        had: Had = inputs.had
        return had.score(self.repeat_score.detach().clone())  # weights that are shared out are whole for a moment

    def score_repeats(self, learning: bool) -> None:
        """Learn what is added to the score of an item that the history has, or nothing."""
        self.repeat_score = nn.Parameter(torch.zeros(1)) if learning else None

    def repeat_group(self, lr: float) -> list[dict[str, Any]]:
        """Return the optimiser's group of that score, if there is one; the rest learns at a rate `lr`."""
        if self.repeat_score is None:
            return []
        return [{"params": [self.repeat_score], "lr": REPEAT_RATE * lr, "weight_decay": 0.0}]

    @property
    def scores_are_products(self) -> bool:
        """Return whether each score is the product of a user vector and an item vector, and nothing more."""
        return type(self).best is NextItemModule.best and self.repeat_score is None

    def rank(self, batch: HeldOut, catalogue: Tensor) -> list[Ranking]:
        """Return the ranks of a batch's targets in each way that it asks for, given all item vectors, (N+1, D)."""
        users, extra = self.user_vectors(batch.inputs).float(), self.extra_scores(batch.inputs)
        targets, ways = batch.targets, batch.left_out
        if len(ways) == 1:
            return [rank_targets(users, catalogue, targets, negatives=batch.negatives, seen=ways[0], extra=extra)]
        every = rank_targets(users, catalogue, targets, extra=extra)
        return [every if seen is None else leave_out(every, users, catalogue, targets, seen, extra) for seen in ways]

    def best(
        self,
        inputs: Any,
        catalogue: Tensor,
        k: int,
        seen: tuple[Tensor, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the (B, k) items of highest score and their scores, see `top_items`."""
        users, extra = self.user_vectors(inputs).float(), self.extra_scores(inputs)
        return top_items(users, catalogue, k, seen, hidden, extra)

    def use_memory(self, folder: Path, dataset: PreparedDataset) -> None:
        """Read the old events of a dataset's users from what a folder keeps of them.

        Raises:
            UserError: If the model has no such memory.
        """
        raise UserError(f"this model compresses no old events, so --memory {folder} has nothing for it: drop the flag")

    def look_under(self, item: str) -> PreparedDataset:
        """Rank the comments under an item, named by its id, from now on; return the dataset whose items they are.

        Raises:
            UserError: If the model ranks none.
        """
        raise UserError(f"this model ranks items, not the comments under one: drop --under {item}")

    def configure_model(self) -> None:
        """Shard the weights over the processes if the strategy does so."""
        shard(self, ("training_step", "user_vectors", "item_vectors", "extra_scores"))

    def _start(self, loader: Any) -> None:
        self.recorder.expect(loader.dataset.users)
        self.other_results = None
        if getattr(loader.dataset, "other", None) is not None:
            self.other_recorder.expect(loader.dataset.users)
            self.other_results = {}
        with torch.no_grad():
            self._catalogue = self.candidates().detach().float()  # a parameter would become one of the module's

    def _rank(self, batch: Any) -> None:
        assert self._catalogue is not None
        rankings = self.rank(batch, self._catalogue)
        for recorder, ranking in zip((self.recorder, self.other_recorder), rankings, strict=False):
            recorder.add(batch.rows, ranking)

    def _finish(self, stage: str) -> None:
        self.results = self.recorder.compute(self.device)
        if self.other_results is not None:
            self.other_results = self.other_recorder.compute(self.device)
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


class ScoringModule(NextItemModule):
    """A recommender whose scores are no dot products: it implements `scores` in place of vectors."""

    def __init__(self, num_items: int, metric_ks: tuple[int, ...] = KS) -> None:
        super().__init__(metric_ks)
        self.num_items = num_items

    def scores(self, inputs: Any) -> Tensor:
        """Return the score of each item for each user, (B, N+1), column i for item i."""
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """Return (N+1, 0): there are none."""
        return torch.zeros(self.num_items + 1, 0)

    def rank(self, batch: HeldOut, catalogue: Tensor) -> list[Ranking]:
        """Return the ranks of a batch's targets in each way that it asks for."""
        scores = self.scores(batch.inputs)
        return [rank_scores(scores, batch.targets, negatives=batch.negatives, seen=seen) for seen in batch.left_out]

    def best(
        self,
        inputs: Any,
        catalogue: Tensor,
        k: int,
        seen: tuple[Tensor, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the (B, k) items of highest score and their scores, see `top_scores`."""
        return top_scores(self.scores(inputs), k, seen, hidden)


class Recommender(NamedTuple):
    """A trained model for use; a family's `finetune.restore` makes one."""

    module: NextItemModule
    make_inputs: Callable[[Histories, NDArray[np.int64]], Any]
    """Maps a view and (B,) rows to the argument of `user_vectors`."""
    count_tokens: Callable[[Histories], NDArray[np.int64]]
    """Maps a view to (n,) number of events or tokens read of each history."""


class TrainedOn(NamedTuple):
    """Where a model was trained, when it is to serve a different catalogue, such as a later one of the same shop."""

    dataset: PreparedDataset
    run: Path
    """The folder of the run."""
