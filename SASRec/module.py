"""What SASRec reads of a history and learns from a batch, as a Lightning module."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from SASRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from SASRec.model import SASRec
from SASRec.options import Config
from seqrec.data.dataset import Histories
from seqrec.nn.item_table import GivenVectors
from seqrec.nn.ragged import padded_layout
from seqrec.training.id_model import IdModule


class SASRecModule(IdModule):
    """Every event of a training sequence predicts the next; in use, the last one does."""

    family = "SASRec"
    config: Config

    @classmethod
    def training_data(cls, config: Config, train: Histories, num_items: int) -> TrainDataset:
        """Return the training histories in batches of inputs, targets and negatives."""
        model, seed, repeats = config.model, config.training.seed, config.repeat_score
        return TrainDataset(train, num_items, model.maxlen, config.objective, seed, model.relative_time, repeats)

    def build_model(self, num_items: int, given: GivenVectors | None) -> SASRec:
        """Return the model for a catalogue."""
        return SASRec(num_items, self.config.model, given)

    @property
    def maxlen(self) -> int:
        """Most recent events that the model reads."""
        return self.config.model.maxlen

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories."""
        return make_inputs(histories, rows, self.maxlen, self.config.model.relative_time, self.config.repeat_score)

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every event, (T, D)."""
        hidden: Tensor = self.model(items, batch.positions, batch.layout, table=table, seconds=batch.seconds)
        return hidden

    def read(self, inputs: Inputs) -> Tensor:
        """Return the last event's output of each history, (B, D)."""
        hidden: Tensor = self.model(inputs.items, inputs.positions, inputs.layout, inputs.last, seconds=inputs.seconds)
        return hidden[inputs.order]

    @property
    def most_events(self) -> int:
        """Most recent events that the model reads."""
        return self.maxlen

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of histories in a rectangle, see `NextItemModule.read_rectangle`."""
        if self.config.model.relative_time:
            return super().read_rectangle(vectors, lengths)
        B, L, _ = vectors.shape
        positions = (torch.arange(L) - lengths[:, None] + self.maxlen).clamp(max=self.maxlen - 1)
        last = padded_layout(torch.ones_like(lengths), 1)
        hidden: Tensor = self.model(
            torch.arange(B * L), positions.flatten(), padded_layout(lengths, L), last, table=vectors.flatten(0, 1)
        )
        return self._scaled(hidden)
