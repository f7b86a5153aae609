"""Train SASRec from random item vectors or from a language model's, and test it: `bash SASRec/finetune.sh --help`."""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor

from SASRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from SASRec.model import SASRec, SASRecConfig
from seqrec.basics.command import run_command
from seqrec.data.dataset import Dataset
from seqrec.training.id_model import IdFamily, IdModelConfig, IdModule, restore_id_model, train_id_model
from seqrec.training.module import Grown, Recommender


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(IdModelConfig):
    """One SASRec run: data, item vectors, loss, architecture, training and evaluation."""

    model: SASRecConfig = field(default_factory=SASRecConfig)


class SASRecModule(IdModule):
    """Every event of a training sequence predicts the next; in use, the last one does."""

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every event, (T, D)."""
        hidden: Tensor = self.model(items, batch.positions, batch.layout, table=table, seconds=batch.seconds)
        return hidden

    def read(self, inputs: Inputs) -> Tensor:
        """Return the last event's output of each history, (B, D)."""
        hidden: Tensor = self.model(inputs.items, inputs.positions, inputs.layout, inputs.last, seconds=inputs.seconds)
        return hidden[inputs.order]


def family(config: Config) -> IdFamily:
    """Return what SASRec brings to a run."""
    maxlen, seed, timed = config.model.maxlen, config.training.seed, config.model.relative_time
    return IdFamily(
        "SASRec",
        maxlen,
        make_model=lambda num_items, start: SASRec(num_items, config.model, start),
        make_module=SASRecModule,
        make_train=lambda train, n: TrainDataset(train, n, maxlen, config.objective, seed, timed),
        make_inputs=partial(make_inputs, timed=timed),
    )


def restore(config: Config, dataset: Dataset, state: dict[str, Tensor], grown: Grown | None = None) -> Recommender:
    """Return a trained SASRec for use, see `restore_id_model`."""
    return restore_id_model(config, family(config), dataset, state, grown)


def main(config: Config) -> None:
    """Run one SASRec."""
    train_id_model(config, family(config))


if __name__ == "__main__":
    run_command(main, Config)
