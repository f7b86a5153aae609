"""What BERT4Rec reads of a history and learns from a batch, as a Lightning module."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from Bert4Rec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from Bert4Rec.model import Bert4Rec
from Bert4Rec.options import Config
from seqrec.data.dataset import Histories
from seqrec.nn.item_table import GivenVectors
from seqrec.nn.ragged import padded_layout
from seqrec.training.id_model import IdModule


class Bert4RecModule(IdModule):
    """Hidden events of a training sequence are predicted; in use, one appended after the history is."""

    family = "Bert4Rec"
    config: Config

    @classmethod
    def training_data(cls, config: Config, train: Histories, num_items: int) -> TrainDataset:
        """Return the training histories in batches of inputs with hidden items, targets and negatives."""
        hidden, seed = (config.mask_prob, config.last_only_prob), config.training.seed
        maxlen, repeats = config.model.maxlen, config.repeat_score
        return TrainDataset(train, num_items, maxlen, *hidden, config.objective, seed, repeats)

    def build_model(self, num_items: int, given: GivenVectors | None) -> Bert4Rec:
        """Return the model for a catalogue."""
        return Bert4Rec(num_items, self.config.model, given)

    @property
    def maxlen(self) -> int:
        """Most recent events that the model reads."""
        return self.config.model.maxlen

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories, and after each a hidden one."""
        return make_inputs(histories, rows, self.maxlen, self.config.repeat_score)

    def _asked(self, inputs: Inputs, table: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.model(
            inputs.items, inputs.masked, inputs.positions, inputs.layout, inputs.asked, inputs.asked_layout, table
        )
        return hidden

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every asked event, (T, D)."""
        return self._asked(batch.inputs._replace(items=items), table)

    def read(self, inputs: Inputs) -> Tensor:
        """Return the appended event's output of each history, (B, D)."""
        return self._asked(inputs)[inputs.order]

    @property
    def most_events(self) -> int:
        """Most recent events that the model reads; one hidden event stands after them."""
        return self.maxlen - 1

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of histories in a rectangle, see `NextItemModule.read_rectangle`."""
        vectors, lengths = F.pad(vectors, (0, 0, 0, 1)), lengths + 1
        B, L, _ = vectors.shape
        place, layout = torch.arange(L), padded_layout(lengths, L)
        positions = (place - lengths[:, None] + self.maxlen).clamp(max=self.maxlen - 1)
        asked_layout = padded_layout(torch.ones_like(lengths), 1)
        hidden: Tensor = self.model(
            torch.arange(B * L),
            (place == lengths[:, None] - 1).flatten(),
            positions.flatten(),
            layout,
            layout.last,
            asked_layout,
            vectors.flatten(0, 1),
        )
        return self._scaled(hidden)
