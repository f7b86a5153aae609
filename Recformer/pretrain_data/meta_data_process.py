"""Prepare the Amazon categories that Recformer is pretrained and validated on: `python meta_data_process.py --help`.

Each category becomes a dataset of its name in data/. Then run interaction_data_process.py.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError
from seqrec.data.preparation import DATA_DIR, prepare
from seqrec.data.sources.amazon import Amazon

log = logging.getLogger(__name__)
CATEGORIES = (
    "Automotive",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Electronics",
    "Grocery_and_Gourmet_Food",
    "Home_and_Kitchen",
    "Movies_and_TV",
    "CDs_and_Vinyl",
)
"""The last is held out for validation."""


def folder_of(constant: str) -> Path:
    """Return the folder that the environment variable of a published script's constant names, or this one."""
    return Path(os.environ.get(constant) or Path(__file__).resolve().parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the raw files are; a flag may be given as the environment variable of its name in capitals, too."""

    meta_root: Path = field(default_factory=lambda: folder_of("META_ROOT"))
    """Folder of the metadata, meta_<category>.json.gz."""
    seq_root: Path = field(default_factory=lambda: folder_of("SEQ_ROOT"))
    """Folder of the reviews, <category>_5.json.gz."""
    categories: tuple[str, ...] = CATEGORIES
    """Categories to prepare."""
    data_dir: Path = DATA_DIR
    """Folder of the prepared datasets."""
    overwrite: bool = False
    """Replace datasets of these names that differ."""


def main(config: Config) -> None:
    """Prepare each category."""
    files = [
        (name, config.meta_root / f"meta_{name}.json.gz", config.seq_root / f"{name}_5.json.gz")
        for name in config.categories
    ]
    if missing := [str(path) for _, *pair in files for path in pair if not path.is_file()]:
        raise MissingFileError(
            f"{len(missing)} of {2 * len(files)} files are missing: {', '.join(missing[:2])} ... They are at "
            "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2: --meta_root and --seq_root name their folders.\n"
            "Without them, `bash Recformer/lightning_run.sh` pretrains on a small made-up shop"
        )
    for name, meta, reviews in files:
        source = Amazon(
            name=name,
            data_dir=config.data_dir,
            reviews=reviews,
            meta=meta,
            on_missing_text="drop",
            overwrite=config.overwrite,
        )
        log.info("prepared dataset: %s", prepare(source))
    log.info("next: python interaction_data_process.py")


if __name__ == "__main__":
    run_command(main, Config)
