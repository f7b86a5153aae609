"""Join the categories that meta_data_process.py prepared into a corpus: `python interaction_data_process.py --help`.

It is `scripts/prepare.py corpus --prefix_items`: a person who bought in two categories is two users, as the published
script has it. All categories but the last are joined; the last is for validation.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from Recformer.pretrain_data.meta_data_process import CATEGORIES
from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.preparation import DATA_DIR, prepare
from seqrec.data.sources.corpus import Corpus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One corpus."""

    categories: tuple[str, ...] = CATEGORIES
    """Prepared datasets: all but the last are joined, the last is for validation."""
    name: str = "pretraining"
    """Name of the corpus."""
    data_dir: Path = DATA_DIR
    """Folder of the prepared datasets."""
    overwrite: bool = False
    """Replace a corpus of this name that differs."""


def main(config: Config) -> None:
    """Join the categories."""
    if len(config.categories) < 2:
        raise UserError("--categories needs at least two: one to train on, the last to validate on")
    missing = [name for name in config.categories if not (config.data_dir / name / "manifest.json").is_file()]
    if missing:
        raise MissingFileError(
            f"{', '.join(missing)}: not in {config.data_dir}. Run `python meta_data_process.py` first; without data, "
            "`bash Recformer/lightning_run.sh` pretrains on a small made-up shop"
        )
    *domains, held_out = config.categories
    corpus = Corpus(
        name=config.name,
        data_dir=config.data_dir,
        datasets=tuple(domains),
        prefix_items=True,
        overwrite=config.overwrite,
    )
    log.info("prepared corpus: %s", prepare(corpus))
    log.info("pretrain on it: bash Recformer/lightning_run.sh --dataset %s --valid_dataset %s", config.name, held_out)


if __name__ == "__main__":
    run_command(main, Config)
