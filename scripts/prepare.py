"""Turn raw data into a prepared dataset: `python scripts/prepare.py SOURCE --input ... --name ...`.

Sources: demo, atomic. `SOURCE --help` lists its options. The dataset is written to data/NAME, whole or
not at all, and its card is printed.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from tyro.conf import subcommand

from seqrec.preparation import prepare
from seqrec.sources.atomic import Atomic
from seqrec.sources.demo import Demo
from seqrec.sources.movielens import MovieLens

Source = (
    Annotated[Demo, subcommand(Demo.kind)]
    | Annotated[Atomic, subcommand(Atomic.kind)]
    | Annotated[MovieLens, subcommand(MovieLens.kind)]
)


def main(config: Source) -> None:
    """Prepare one dataset and print its card."""
    folder = prepare(config)
    print(folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Source, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True, description=__doc__))
