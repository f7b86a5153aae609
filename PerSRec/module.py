"""What PerSRec reads of a history and learns from a batch, as a Lightning module."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from PerSRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from PerSRec.model import HistoryModel
from PerSRec.options import Config
from seqrec.data.dataset import Histories
from seqrec.nn.item_table import GivenVectors
from seqrec.training.id_model import IdModule


class PerSRecModule(IdModule):
    """Every event of a training sequence predicts the next; in use, the newest one does."""

    family = "PerSRec"
    config: Config

    def __init__(self, config: Config, num_items: int, given: GivenVectors | None) -> None:
        super().__init__(config, num_items, given)
        temp = config.objective.temp
        self.log_temp = nn.Parameter(torch.tensor(temp).log()) if config.learn_temp and temp is not None else None

    @classmethod
    def training_data(cls, config: Config, train: Histories, num_items: int) -> TrainDataset:
        """Return the training histories in batches of inputs, targets and negatives."""
        options, timed = config.history, config.model.time_bias
        return TrainDataset(train, num_items, options, config.objective, config.training.seed, timed)

    def build_model(self, num_items: int, given: GivenVectors | None) -> HistoryModel:
        """Return the model for a catalogue."""
        return HistoryModel(num_items, self.config.history.window, self.config.model, given)

    @property
    def maxlen(self) -> int:
        """Most recent events that the model reads."""
        return self.config.history.maxlen

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories."""
        return make_inputs(histories, rows, self.config.history.window, self.config.model.time_bias)

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every event, (T, D)."""
        hidden: Tensor = self.model(F.embedding(items, table), batch.rows, batch.seconds)
        return hidden

    def read(self, inputs: Inputs) -> Tensor:
        """Return the newest event's output of each history, (B, D)."""
        vectors = self.model.item_embedding(inputs.items)
        hidden: Tensor = self.model(vectors, inputs.rows, inputs.seconds, inputs.newest)
        return hidden[inputs.order]

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Normalise and divide by the temperature, which may be learned and is at least 0.01."""
        if self.log_temp is None:
            return super()._scaled(hidden)
        return F.normalize(hidden, dim=1) / self.log_temp.exp().clamp(min=0.01)
