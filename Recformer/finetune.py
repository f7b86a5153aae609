"""Finetune Recformer in two stages, test it and export its item vectors: `bash Recformer/finetune.sh --help`.

Stage 1 encodes all items again after each epoch, or as --item_refresh says. Stage 2 starts from its best epoch and
keeps that epoch's item vectors fixed. Both share the best validation score, so stage 2 counts only if it is better.
`embedding/<dataset>/` gets `longformer` (the backbone untouched), `pretrain` (where --pretrain_ckpt is given) and
`finetune` (stage 1's best epoch, encoded by that epoch's own weights).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from Recformer.options import FINETUNE_PUBLISHED as PUBLISHED
from Recformer.options import FinetuneConfig as Config
from seqrec.basics.command import run_command

if TYPE_CHECKING:
    from torch import Tensor

    from seqrec.data.dataset import Dataset
    from seqrec.training.module import Recommender, TrainedOn

# What trains is imported where it is used: it takes seconds, and --help needs none of it.


def main(config: Config) -> None:
    """Export the untouched vectors, train both stages, test once, and write the run folder."""
    from Recformer.finetuning import finetune

    finetune(config)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a finetuned Recformer for use, see `restore_finetuned`."""
    from Recformer.finetuning import restore_finetuned

    return restore_finetuned(config, dataset, state, trained)


if __name__ == "__main__":
    run_command(main, Config, published=PUBLISHED)
