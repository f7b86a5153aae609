"""Test a ranking that every model must beat; nothing is trained: `bash Baselines/finetune.sh --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from Baselines.options import Config
from seqrec.basics.command import run_command

if TYPE_CHECKING:
    from torch import Tensor

    from seqrec.data.dataset import Dataset
    from seqrec.training.module import Recommender, TrainedOn

# What tests is imported where it is used: it takes seconds, and --help needs none of it.


def main(config: Config) -> None:
    """Count, test, and write the run folder."""
    from Baselines.counting import run_baseline

    run_baseline(config)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a baseline for use, see `restore_baseline`."""
    from Baselines.counting import restore_baseline

    return restore_baseline(config, dataset, state, trained)


if __name__ == "__main__":
    run_command(main, Config)
