"""Train SASRec over items that a language model encodes, and test it: `bash PLMSASRec/finetune.sh --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PLMSASRec.options import PUBLISHED, Config
from seqrec.basics.command import run_command

if TYPE_CHECKING:
    from torch import Tensor

    from seqrec.data.dataset import Dataset
    from seqrec.training.module import Recommender, TrainedOn

# What trains is imported where it is used: it takes seconds, and --help needs none of it.


def main(config: Config) -> None:
    """Run one PLMSASRec."""
    from PLMSASRec.module import train

    train(config)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained PLMSASRec for use, see `restore_trained`."""
    from PLMSASRec.module import restore_trained

    return restore_trained(config, dataset, state, trained)


if __name__ == "__main__":
    run_command(main, Config, published=PUBLISHED)
