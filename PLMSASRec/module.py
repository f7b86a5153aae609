"""What PLMSASRec reads of a history, as a Lightning module, and its run."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from PLMSASRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from PLMSASRec.model import SASRecEncoder
from PLMSASRec.options import Config
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.splits import Split
from seqrec.items.language_model import ReadTexts
from seqrec.items.options import Head
from seqrec.items.vectors import IdVectors, ItemVectors
from seqrec.nn.ragged import padded_layout
from seqrec.training.item_batches import ItemReader
from seqrec.training.module import Recommender, TrainedOn
from seqrec.training.text_module import TextModule, name_items, restore_text_model, train_text_model
from seqrec.training.transitions import TransitionReader


class PLMSASRecModule(TextModule):
    """Every event of a training sequence predicts the next; in use, the last one does."""

    family = "PLMSASRec"
    config: Config

    def build_encoder(self) -> SASRecEncoder:
        """Return SASRec."""
        return SASRecEncoder(self.config.model)

    @property
    def head(self) -> Head:
        """What scores are taken with."""
        return self.config.head

    @property
    def deviation(self) -> float:
        """Standard deviation of the initial weights of projection, prompts and head."""
        return self.config.model.sasrec_initializer_range

    def build_items(self, dataset: Dataset) -> tuple[ItemVectors, ReadTexts | None]:
        """Return what makes the items' vectors, and what reads the texts for it, if it reads any."""
        if self.config.input_type == "id":
            return IdVectors(dataset.num_items, self.width, self.config.model.sasrec_initializer_range), None
        return super().build_items(dataset)

    def training_data(self, train: Histories, num_items: int) -> TrainDataset:
        """Return the training histories in batches of inputs, targets and negatives."""
        config, is_tied = self.config, self.config.head == "tied"
        maxlen, seed = config.model.sasrec_seq_len, config.training.seed
        reader = TransitionReader(train, num_items, maxlen, config.objective, seed, config.repeat_score)
        read_items = ItemReader(train, num_items, config.objective, is_tied, self.read_texts, not self.takes_pooled)
        return TrainDataset(reader, read_items)

    def predict(self, batch: TrainBatch, vectors: Tensor) -> Tensor:
        """Return the output of every event, (E, d)."""
        hidden: Tensor = self.model.encoder(vectors, batch.positions, batch.layout)
        return hidden

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories."""
        return make_inputs(histories, rows, self.config.model.sasrec_seq_len, self.config.repeat_score)

    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""
        return np.minimum(histories.lengths, self.config.model.sasrec_seq_len)

    def read(self, inputs: Inputs) -> Tensor:
        """Return the last event's output of each history, (B, d)."""
        vectors = F.embedding(inputs.items, self.encoded())
        hidden: Tensor = self.model.encoder(vectors, inputs.positions, inputs.layout, inputs.last)
        return hidden[inputs.order]

    @property
    def most_events(self) -> int:
        """Most recent events that the model reads."""
        return self.config.model.sasrec_seq_len

    def event_vectors(self) -> Tensor:
        """Return the vectors of all items, (N+1, d)."""
        return self.encoded()

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of histories in a rectangle, see `NextItemModule.read_rectangle`."""
        B, L, _ = vectors.shape
        positions = torch.arange(L).expand(B, L).flatten()
        last = padded_layout(torch.ones_like(lengths), 1)
        hidden: Tensor = self.model.encoder(vectors.flatten(0, 1), positions, padded_layout(lengths, L), last)
        return self._scaled(self.model.with_bias(hidden))


def choose_users(split: Split, dataset: Dataset, least: int, most: int | None) -> Split:
    """Return a split without users who have fewer or more interactions than asked for.

    Raises:
        UserError: If none is left.
    """
    lengths = np.diff(dataset.offsets)
    kept = (lengths >= least) & (lengths <= (most or np.iinfo(np.int64).max))
    parts = [view.select(kept[view.users]) for view in (split.train, split.valid, split.test)]
    if not all(len(part) for part in parts):
        raise UserError(f"no user of {dataset.name} has {least} to {most or 'any number of'} interactions")
    return Split(split.name, *parts)


def train(config: Config) -> None:
    """Run one PLMSASRec."""
    dataset = open_dataset(config.dataset, config.data_path)
    split = choose_users(config.protocol.hold_out(dataset), dataset, config.min_item_seq_len, config.max_item_seq_len)
    train_text_model(PLMSASRecModule, config, dataset, split, run_name(config))


def run_name(config: Config) -> str:
    """Return the name of runs that differ only in the seed: what the items are to the model."""
    return "id" if config.input_type == "id" else name_items(config)


def restore_trained(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained model for use, on the catalogue that it was `trained` on or on another one.

    Raises:
        UserError: If the model cannot serve the other catalogue.
    """
    if trained is not None and (config.input_type == "id" or config.head == "untied"):
        raise UserError(
            "this model has weights for each item of its training, so it cannot score new ones: train with "
            "--input_type text --head tied to serve new items"
        )
    return restore_text_model(PLMSASRecModule, config, dataset, state, trained)
