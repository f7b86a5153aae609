"""Train and test a PerSRec model: `bash PerSRec/finetune.sh --help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PerSRec.options import Config
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from PerSRec.module import HLLMModule, PerSRecModule
    from seqrec.data.dataset import Dataset
    from seqrec.training.module import Recommender, TrainedOn

# What trains is imported where it is used: it takes seconds, and --help needs none of it.


def main(config: Config) -> None:
    """Run one PerSRec model."""
    from PerSRec.module import train

    train(config)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained PerSRec model for use, see `restore_trained`."""
    from PerSRec.module import restore_trained

    return restore_trained(config, dataset, state, trained)


def load_trained(
    run: Path, data_path: Path | None = None, needs_tokens: bool = True
) -> tuple[Dataset, PerSRecModule | HLLMModule]:
    """Return a run's dataset and its model.

    Raises:
        UserError: If it is of another family, or has no user tokens where it needs them.
    """
    from PerSRec.module import HLLMModule, PerSRecModule
    from seqrec.training.restore import load_run

    dataset, recommender = load_run(run, data_path)
    module = recommender.module
    if not isinstance(module, PerSRecModule | HLLMModule):
        raise UserError(f"{run} is no run of PerSRec: give one of runs/PerSRec/")
    if needs_tokens and module.encoder.tokens is None:
        raise UserError(f"{run} has no user tokens: train PerSRec with --number_of_user_tokens K first")
    return dataset, module


if __name__ == "__main__":
    run_command(main, Config)
