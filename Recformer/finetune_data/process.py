"""Prepare Amazon reviews as Recformer's finetuning data, with the published script's flags: `python process.py --help`.

It is `scripts/prepare.py amazon --min_uc 4`, which has more options, such as `--sample_users N`: the published script
keeps a random fifth of the users.
"""

from dataclasses import dataclass
from pathlib import Path

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.amazon import Amazon

WEBSITE = "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One dataset."""

    file_path: Path = Path("Industrial_and_Scientific_5.json.gz")
    """Reviews, each of a user and an item, one JSON object a line."""
    meta_file_path: Path = Path("meta_Industrial_and_Scientific.json.gz")
    """Items' metadata: asin, title, brand, category."""
    output_path: Path = Path("Scientific")
    """Folder to write the prepared dataset to; its last part is the dataset's name."""
    raw_text: bool = False
    """Keep texts as the source has them, as the published script does."""
    overwrite: bool = False
    """Replace a dataset of this name that differs."""


def main(config: Config) -> None:
    """Prepare the dataset and print its card."""
    for flag, path, folder in (
        ("file_path", config.file_path, "categoryFilesSmall"),
        ("meta_file_path", config.meta_file_path, "metaFiles2"),
    ):
        if not path.is_file():
            raise MissingFileError(
                f"--{flag} {path} does not exist. Download it: curl -O {WEBSITE}/{folder}/{path.name}\n"
                "Without data of your own, `bash Recformer/finetune.sh` makes a small shop by itself"
            )
    target = config.output_path.resolve()
    source = Amazon(
        name=target.name,
        data_dir=target.parent,
        reviews=config.file_path,
        meta=config.meta_file_path,
        on_missing_text="drop",
        min_uc=4,
        raw_text=config.raw_text,
        overwrite=config.overwrite,
    )
    from seqrec.evaluation.signal import describe_fully  # scipy and scikit-learn: not for --help

    print(describe_fully(load_dataset(prepare(source))))
    print(f"prepared dataset: {target}\nfinetune on it: bash Recformer/finetune.sh --data_path {target}")


if __name__ == "__main__":
    run_command(main, Config)
