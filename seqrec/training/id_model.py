"""The base of ID models: loss, optimiser, start from item vectors, and their run.

A family adds a model with an `item_embedding` and `item_vectors()`, its batches, and its predictions for them.
Shapes: N items, B users, T targets of a batch, D width of the model.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.precision import halves_if_worth_it
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.vectors import NONE, load_embeddings, name_of, vectors_sha256
from seqrec.nn.item_table import GivenVectors
from seqrec.nn.losses import catalogue_loss
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.training.batches import history_batches
from seqrec.training.folder import RunFolder
from seqrec.training.id_options import IdModelConfig, RepeatingConfig
from seqrec.training.module import NextItemModule, Recommender, TrainedOn, share_of_mean
from seqrec.training.new_items import ADVICE, read_new_items
from seqrec.training.record import RunRecord
from seqrec.training.sharding import whole_weights
from seqrec.training.trainer import complete, report, test

TABLE = "model.item_embedding.weight"
"""Name of the item table in a state."""


class IdModule(NextItemModule, ABC):
    """A model over item ids with its loss and optimiser; families implement the abstract methods."""

    family: ClassVar[str]
    """Name of the family's folder."""

    def __init__(self, config: IdModelConfig, num_items: int, given: GivenVectors | None) -> None:
        """Build the model for a catalogue, with given item vectors or, without, with random ones."""
        super().__init__(config.protocol.metric_ks)
        self.config = config
        self.model: Any = self.build_model(num_items, given)
        self.score_repeats(isinstance(config, RepeatingConfig) and config.repeat_score)

    @classmethod
    @abstractmethod
    def training_data(cls, config: Any, train: Histories, num_items: int) -> Any:
        """Return the training histories as a dataset of batches by `BatchKey`, with (n,) `lengths` of its sequences."""

    @abstractmethod
    def build_model(self, num_items: int, given: GivenVectors | None) -> nn.Module:
        """Return the model: it has an `item_embedding` and `item_vectors()`."""

    @property
    @abstractmethod
    def maxlen(self) -> int:
        """Maximum number of most recent events that the model reads."""

    @abstractmethod
    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Any:
        """Return the argument of `user_vectors` for (B,) rows of a view."""

    @abstractmethod
    def predict(self, batch: Any, items: Tensor, table: Tensor) -> Tensor:
        """Return the vectors that predict the targets of a training batch, (T, D).

        Args:
            batch: With the `items` of its events, `targets`, of which `num_counted` count, and `negatives`.
            items: int64 row of the table for each event.
            table: (R, D) item vectors.
        """

    @abstractmethod
    def read(self, inputs: Any) -> Tensor:
        """Return the vector that predicts the next item of each history, (B, D)."""

    def event_vectors(self) -> Tensor:
        """Return the item table, (N+1, D)."""
        vectors: Tensor = self.model.item_embedding.vectors()
        return vectors

    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""
        return np.minimum(histories.lengths, self.maxlen)

    def user_vectors(self, inputs: Any) -> Tensor:
        """Return the user vectors, (B, D): scores are their dot products with the item vectors."""
        return self._scaled(self.read(inputs))

    def item_vectors(self) -> Tensor:
        """Return the item vectors for scoring, (N+1, D)."""
        with whole_weights(self) as for_now:
            vectors = self._classes()
            return vectors.clone() if for_now else vectors

    def _classes(self, table: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        vectors: Tensor = self.model.item_vectors(table, rows)
        return vectors if self.config.objective.temp is None else F.normalize(vectors, dim=1)

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Normalise and divide by the temperature, if there is one."""
        temp = self.config.objective.temp
        return hidden if temp is None else F.normalize(hidden, dim=1) / temp

    def training_step(self, batch: Any) -> Tensor:
        """Return the mean loss over all targets of the batch, or of several processes this one's share."""
        objective, embedding = self.config.objective, self.model.item_embedding
        items, targets, (negatives, log_chance) = batch.items, batch.targets, batch.negatives
        if objective.loss == "ce":
            rows, table = None, embedding.vectors()
        else:
            # A sampled loss needs no other items: a large catalogue is not projected at every step.
            sizes = len(items), len(targets), len(negatives)
            rows, places = torch.cat([items, targets, negatives]).unique(return_inverse=True)
            items, targets, negatives = places.split(sizes)
            table = embedding(rows)
        with halves_if_worth_it(table, len(items)):
            hidden = self._scaled(self.predict(batch, items, table))
        classes, targets = self.choose_classes(batch, self._classes(table, rows), targets)
        extra = None if self.repeat_score is None else batch.had.score(self.repeat_score)
        loss = catalogue_loss(objective, hidden, classes, targets, negatives, log_chance, embedding.num_items, extra)
        loss, total = share_of_mean(loss, batch.num_counted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=total)
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adam over all trainable parameters, with its schedule."""
        config, table = self.config, self.model.item_embedding.weight
        apart = [table] if self.repeat_score is None else [table, self.repeat_score]
        groups = decay_weights(self, config.weight_decay, leave_out=apart)
        groups += self.repeat_group(config.lr)
        starts = [0] * len(groups)
        if table.requires_grad:
            groups.append({"params": [table], "lr": config.table_lr, "weight_decay": config.weight_decay})
            starts.append((config.table.unfreeze_at or 1) - 1)
        optimizer = torch.optim.AdamW(groups, config.lr, betas=(0.9, 0.98), fused=can_fuse(self))
        return schedule_rate(optimizer, self, config.warmup_steps, config.schedule, starts)


def restore_id_model(
    module_class: type[IdModule],
    config: IdModelConfig,
    dataset: Dataset,
    state: dict[str, Tensor],
    trained: TrainedOn | None = None,
) -> Recommender:
    """Return a trained model for use, on the catalogue that it was `trained` on or, with that given, on another one.

    Raises:
        UserError: If the model cannot serve the other catalogue.
    """
    if trained is not None:
        with torch.device("meta"):
            as_trained = module_class(config, trained.dataset.num_items, None)
        table = read_new_items(
            config.table,
            lambda data: load_embeddings(config.init_type, data, config.embedding_dir),
            config.protocol.hold_out(trained.dataset).train.item_counts(trained.dataset.num_items) > 0,
            (trained.dataset, dataset),
            state[TABLE],
            as_trained.model.item_embedding,
        )
        state = state | {TABLE: table}
    given = None
    if config.init_type != NONE:
        # The given vectors are in the state; the table only needs their shape.
        zeros = np.zeros(state[TABLE].shape, dtype=np.float32)
        plain = replace(config.table, init_transform=("none",), fit_transform="all")
        given = GivenVectors(zeros, np.ones(len(zeros), dtype=bool), plain)
    module = module_class(config, dataset.num_items, given)
    if own := [name for name, tensor in module.state_dict().items() if tensor.shape != state[name].shape]:
        raise UserError(f"{', '.join(own)} hold a parameter for each item of the training catalogue: {ADVICE}")
    module.load_state_dict(state)
    return Recommender(module, module.make_inputs, module.count_events)


def train_id_model(module_class: type[IdModule], config: IdModelConfig) -> None:
    """Train, choose the best epoch on validation, test once, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    vectors = None if config.init_type == NONE else load_embeddings(config.init_type, dataset, config.embedding_dir)
    digest = None if vectors is None else vectors_sha256(vectors)
    run = RunFolder(module_class.family, dataset, name_of(config.init_type), config.training, config.protocol, digest)
    split = config.protocol.hold_out(dataset)
    train = module_class.training_data(config, split.train, dataset.num_items)
    if not run.open(config):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    occurring = split.train.item_counts(dataset.num_items) > 0
    given = None if vectors is None else GivenVectors(vectors, occurring, config.table)
    module = module_class(config, dataset.num_items, given)
    complete(run, module, history_batches(module, config, dataset, split, train))


def import_id_model(
    module_class: type[IdModule], config: IdModelConfig, weights: dict[str, Tensor], source: Path
) -> None:
    """Test weights that were trained elsewhere, and write the folder of a run that has them.

    Args:
        module_class: The family's module.
        config: All flags of the run.
        weights: The model's state, row i of the item table for item i.
        source: Path for messages.

    Raises:
        UserError: If the weights are of another architecture, or of another number of items.
    """
    dataset = open_dataset(config.dataset, config.data_path)
    rows = len(weights["item_embedding.weight"])
    if rows != dataset.num_items + 1:
        raise UserError(
            f"{source} has vectors of {rows - 1:,} items and {dataset.path} {dataset.num_items:,} items: prepare the "
            "dataset.pkl that the weights were trained on, in which every item occurs"
        )
    run = RunFolder(module_class.family, dataset, NONE, config.training, config.protocol)
    module = module_class(config, dataset.num_items, None)
    own = {name: tensor.shape for name, tensor in module.model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if odd := [name for name in own | found if own.get(name) != found.get(name)]:
        raise UserError(f"{source} does not fit {module_class.family}: {', '.join(odd[:6])}")
    module.model.load_state_dict(weights)
    if not run.open(config):
        return
    split = config.protocol.hold_out(dataset)
    train = module_class.training_data(config, split.train, dataset.num_items)
    with write_atomically(run.folder / "checkpoints" / "best.ckpt") as file:
        torch.save({"state_dict": module.state_dict()}, file)
    record = RunRecord(run.folder, config.training)
    report(run, module, record, test(module, history_batches(module, config, dataset, split, train), config.training))
