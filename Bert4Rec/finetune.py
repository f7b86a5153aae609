"""Train BERT4Rec from random item vectors or from a language model's: `bash Bert4Rec/finetune.sh --help`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Bert4Rec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from Bert4Rec.model import Bert4Rec, Bert4RecConfig
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset, Histories
from seqrec.nn.item_table import GivenVectors
from seqrec.training.id_model import IdModelConfig, IdModule, restore_id_model, train_id_model
from seqrec.training.module import Recommender, TrainedOn


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(IdModelConfig):
    """One BERT4Rec run: data, item vectors, what is hidden, loss, architecture, training and evaluation."""

    mask_prob: float = 0.2
    """Share of a training sequence's items that are asked for."""
    last_only_prob: float = 0.1
    """Share of training sequences of which only the last item is asked, as in use."""
    model: Bert4RecConfig = field(default_factory=Bert4RecConfig)

    def __post_init__(self) -> None:
        IdModelConfig.__post_init__(self)
        if self.objective.temp is not None and self.model.untied_output:
            raise UserError("--untied_output scores with a bias, which a cosine (--temp) has no place for: drop one")
        if not 0 < self.mask_prob < 1 or not 0 <= self.last_only_prob <= 1:
            raise UserError(
                f"--mask_prob must lie in (0, 1) and --last_only_prob in [0, 1], got {self.mask_prob} and "
                f"{self.last_only_prob}"
            )


class Bert4RecModule(IdModule):
    """Hidden events of a training sequence are predicted; in use, one appended after the history is."""

    family = "Bert4Rec"
    config: Config

    @classmethod
    def training_data(cls, config: Config, train: Histories, num_items: int) -> TrainDataset:
        """Return the training histories in batches of inputs with hidden items, targets and negatives."""
        hidden = config.mask_prob, config.last_only_prob
        return TrainDataset(train, num_items, config.model.maxlen, *hidden, config.objective, config.training.seed)

    def build_model(self, num_items: int, given: GivenVectors | None) -> Bert4Rec:
        """Return the model for a catalogue."""
        return Bert4Rec(num_items, self.config.model, given)

    @property
    def maxlen(self) -> int:
        """Most recent events that the model reads."""
        return self.config.model.maxlen

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories, and after each a hidden one."""
        return make_inputs(histories, rows, self.maxlen)

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


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained BERT4Rec for use, see `restore_id_model`."""
    return restore_id_model(Bert4RecModule, config, dataset, state, trained)


def main(config: Config) -> None:
    """Run one BERT4Rec."""
    train_id_model(Bert4RecModule, config)


if __name__ == "__main__":
    run_command(main, Config)
