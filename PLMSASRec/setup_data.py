"""Preparing the datasets of the published code from where it keeps raw files: `data/old_data/NAME`."""

import sys
from pathlib import Path
from typing import Any

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError
from seqrec.data.card import describe
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare

RAW = Path(__file__).parent / "data" / "old_data"


def set_up(source: type[Any], name: str) -> None:
    """Prepare `data/old_data/NAME` as data/NAME of the project, with the flags of `scripts/prepare.py`."""
    folder = RAW / name

    def main(config: Any) -> None:
        if not config.input.is_dir():
            raise MissingFileError(
                f"{config.input} does not exist: put the files there that `scripts/prepare.py {source.kind} --help` "
                "names, or give their folder as --input"
            )
        prepared = prepare(config)
        print(describe(load_dataset(prepared)))
        print(f"prepared dataset: {prepared}; for example: python run.py --input_type text --dataset {config.name}")

    run_command(main, source, ["--input", str(folder), "--name", name, *sys.argv[1:]])
