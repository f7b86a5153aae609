"""Write a dataset's item vectors from any Recformer weights.

`python Recformer/encode.py --dataset demo --init_type mine --checkpoint WEIGHTS`; without a checkpoint, the backbone's
own vectors. `finetune.py` writes `longformer` and `finetune` by itself.

Items are encoded part by part, and a part is on disk before the next begins: memory does not grow with the catalogue,
and after a kill the same command goes on. `torchrun --nproc_per_node K Recformer/encode.py ...` shares the parts out.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.config import encoding_options
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT
from seqrec.basics.precision import Precision
from seqrec.data.discovery import open_dataset
from seqrec.data.vectors import Producer, embedding_path, needs_saving
from seqrec.text.encoding import own_device, weights_sha256, write_vectors
from seqrec.text.options import EncoderOptions
from seqrec.text.tokens import load_item_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What to encode, with what, and under which name."""

    init_type: str
    """Name of the vectors: they go to embedding/DATASET/INIT_TYPE.npy."""
    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    checkpoint: Path | None = None
    """Recformer weights to encode with, such as checkpoints/best.ckpt of a finetuning stage."""
    max_tokens: int = 8192
    """Tokens per batch."""
    part_items: int = 16384
    """Items that are encoded, and kept in memory, at a time."""
    precision: Precision = "32-true"
    """Precision of matrix products: 32-true, bf16-mixed or 16-mixed; vectors of another one are others."""
    embedding_dir: Path = ROOT / "embedding"
    """Where item vectors go."""
    overwrite: bool = False
    """Replace vectors of that name that other weights or options made."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def __post_init__(self) -> None:
        check_name("--init_type", self.init_type)
        if self.part_items < 1 or self.max_tokens < 1:
            raise UserError(
                f"--part_items and --max_tokens must be at least 1, got {self.part_items} and {self.max_tokens}"
            )


def main(config: Config) -> None:
    """Encode all items and write their vectors."""
    dataset = open_dataset(config.dataset, config.data_path)
    model, tokenizer = load_backbone(*config.encoder.source, **config.encoder.changes)
    if config.checkpoint is not None:
        load_weights(model, config.checkpoint)
    options = encoding_options(model.config, config.encoder.model_name_or_path, config.precision)
    producer = Producer("Recformer/encode.py", weights_sha256(model), options)
    path = embedding_path(dataset, config.init_type, config.embedding_dir)
    if not needs_saving(path, dataset, producer, config.overwrite):
        log.info("item vectors `%s` are in %s already", config.init_type, path)
        return
    model.to(own_device())
    items = load_item_tokens(dataset, tokenizer, *model.config.text_limits)
    write_vectors(model, items, dataset, path, producer, config.part_items, config.max_tokens, config.precision)
    log.info("item vectors `%s` are in %s", config.init_type, path)


if __name__ == "__main__":
    run_command(main, Config)
