"""Run the frozen part of a language model over a dataset's items, before training: `python preinference.py --help`.

`finetune.py --pre_inference` with the same flags finds the result; it also makes it by itself.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from PLMSASRec.options import PUBLISHED
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.published import PublishedFlags, drop
from seqrec.items.options import ItemOptions, PreInferenceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The items, the language model, and how its frozen blocks are run."""

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    items: ItemOptions = field(default_factory=ItemOptions)
    cache: PreInferenceOptions = field(default_factory=PreInferenceOptions)

    def __post_init__(self) -> None:
        if self.items.plm_last_n_unfreeze == -1:
            raise UserError("--plm_last_n_unfreeze -1 freezes nothing, so there is nothing to keep")


FLAGS = PublishedFlags(
    taken={name: meant for name, meant in PUBLISHED.taken.items() if "unfreeze" in name or "pre_inference" in name},
    converted={name: convert for name, convert in PUBLISHED.converted.items() if name.startswith("--p")}
    | dict.fromkeys(
        # Of training: the result does not depend on them.
        ("--sasrec_seq_len", "--min_item_seq_len", "--max_item_seq_len", "--batch_size", "--num_workers"),
        drop(),
    ),
)


def main(config: Config) -> None:
    """Compute what is missing, and say where it is."""
    import logging

    from seqrec.data.discovery import open_dataset
    from seqrec.items.language_model import open_language_model

    dataset = open_dataset(config.dataset, config.data_path)
    plm = open_language_model(config.items, dataset)
    part = plm.frozen_part(replace(config.cache, pre_inference=True))
    is_whole = plm.frozen == plm.architecture.num_blocks
    kept = part.vectors(plm.pooling) if is_whole else part.states().states
    told = "{:,} x {:,}".format(*kept.shape)
    log = logging.getLogger(__name__)
    log.info("%s after %d of %d blocks, %s, are in %s", told, plm.frozen, plm.architecture.num_blocks,
             f"{kept.nbytes / 1e6:,.0f} MB", plm.cache_folder)  # fmt: skip


if __name__ == "__main__":
    run_command(main, Config, published=FLAGS)
