"""What PerSRec reads of a history and learns from a batch, as a Lightning module."""

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from PerSRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from PerSRec.memory import CompressedHistories, MixedInputs, open_memory
from PerSRec.model import HistoryModel
from PerSRec.options import Config
from seqrec.data.dataset import Dataset, Histories
from seqrec.nn.item_table import GivenVectors
from seqrec.text.encoding import weights_sha256
from seqrec.training.id_model import IdModule

log = logging.getLogger(__name__)


class PerSRecModule(IdModule):
    """Every event of a training sequence predicts the next; in use, the newest one does."""

    family = "PerSRec"
    config: Config
    memory: CompressedHistories | None = None
    """Where old events are read from, if they are compressed."""

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

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs | MixedInputs:
        """Return the latest events of some histories, or the recent ones where the old ones are compressed."""
        if self.memory is not None:
            return self.memory.make_inputs(histories, rows)
        return make_inputs(histories, rows, self.config.history.window, self.config.model.time_bias)

    def use_memory(self, folder: Path, dataset: Dataset) -> None:
        """Read the old events of a dataset's users from what a folder keeps of them."""
        self.memory = open_memory(self.model, weights_sha256(self), dataset, folder)
        log.info("old events of %s of %s users are compressed", *(f"{n:,}" for n in self.memory.num_users))

    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""
        maxlen = self.maxlen if self.memory is None else self.config.history.window.num_recent
        return np.minimum(histories.lengths, maxlen)

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every event, (T, D)."""
        hidden: Tensor = self.model(F.embedding(items, table), batch.rows, batch.seconds)
        return hidden

    def read(self, inputs: Inputs | MixedInputs) -> Tensor:
        """Return the newest event's output of each history, (B, D)."""
        if isinstance(inputs, Inputs):
            vectors = self.model.item_embedding(inputs.items)
            hidden: Tensor = self.model(vectors, inputs.rows, inputs.seconds, inputs.newest)
            return hidden[inputs.order]
        found = []
        if (recalled := inputs.recalled) is not None:
            vectors = self.model.item_embedding(recalled.items)
            found.append(self.model(vectors, recalled.rows, recalled.seconds, recalled.newest, recalled.kept))
        if inputs.whole is not None:
            found.append(self.read(inputs.whole))
        return torch.cat(found)[inputs.order]

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Normalise and divide by the temperature, which may be learned and is at least 0.01."""
        if self.log_temp is None:
            return super()._scaled(hidden)
        return F.normalize(hidden, dim=1) / self.log_temp.exp().clamp(min=0.01)
