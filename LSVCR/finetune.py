"""Train and test LSVCR's sequential recommender for one task: `bash LSVCR/finetune.sh --help`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from LSVCR.options import Config
from LSVCR.published import FINETUNE as PUBLISHED
from LSVCR.published import count_processes
from seqrec.basics.command import run_command

if TYPE_CHECKING:
    from torch import Tensor

    from seqrec.data.dataset import Dataset
    from seqrec.training.module import Recommender, TrainedOn

# What trains is imported where it is used: it takes seconds, and --help needs none of it.


def main(config: Config) -> None:
    """Run one model."""
    from LSVCR.training import train

    train(config)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained model for use, see `restore_trained`."""
    from LSVCR.training import restore_trained

    return restore_trained(config, dataset, state, trained)


if __name__ == "__main__":
    run_command(main, Config, [*count_processes(), *sys.argv[1:]], PUBLISHED)
