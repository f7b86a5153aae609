"""Write a dataset's item vectors from any Recformer weights.

`python Recformer/encode.py --dataset demo --init_type mine --checkpoint WEIGHTS`; without a checkpoint, the backbone's
own vectors. `finetune.py` writes `longformer` and `finetune` by itself.

Items are encoded part by part, and a part is on disk before the next begins: memory does not grow with the catalogue,
and after a kill the same command goes on. `torchrun --nproc_per_node K Recformer/encode.py ...` shares the parts out.
"""

import hashlib
import logging
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.encoding import describe, encode_some, own_device, weights_sha256
from Recformer.options import EncoderOptions
from Recformer.text import load_item_tokens
from seqrec.cache import CachedArrays
from seqrec.command import run_command
from seqrec.dataset import ROOT, find_dataset
from seqrec.embeddings import Producer, embedding_path, needs_saving, save_embeddings
from seqrec.errors import UserError
from seqrec.names import check_name
from seqrec.run import Precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What to encode, with what, and under which name."""

    init_type: str
    """Name of the vectors: they go to embedding/DATASET/INIT_TYPE.npy."""
    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
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
    dataset = find_dataset(config.dataset, config.data_path)
    model, tokenizer = load_backbone(*config.encoder.source, **config.encoder.changes)
    if config.checkpoint is not None:
        load_weights(model, config.checkpoint)
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        torch.distributed.init_process_group("gloo")
    options = describe(model.config, config.encoder.model_name_or_path, config.precision)
    weights = weights_sha256(model)
    path, producer = (
        embedding_path(dataset, config.init_type, config.embedding_dir),
        Producer("Recformer/encode.py", weights, options),
    )
    if not needs_saving(path, dataset, producer, config.overwrite):
        log.info("item vectors `%s` are in %s already", config.init_type, path)
        return
    model.to(own_device())
    items = load_item_tokens(dataset, tokenizer, config.encoder.max_attr_num, config.encoder.max_attr_length)

    def make_part(part: int) -> dict[str, NDArray[np.float32]]:
        ids = np.arange(part * config.part_items, min((part + 1) * config.part_items, dataset.num_items + 1))
        vectors = encode_some(model, items, ids[ids > 0], config.max_tokens, config.precision).cpu().numpy()
        return {"vectors": vectors if part else np.pad(vectors, ((1, 0), (0, 0)))}  # row 0 is padding

    key = options | {"weights": weights, "items": dataset.item_ids_sha256, "tokens": _sha256(items.tokens)}
    cache = CachedArrays(
        config.embedding_dir / ".parts", key | {"part": config.part_items}, dataset.num_items // config.part_items + 1
    )
    with cache.lock() if rank == 0 else nullcontext():
        if processes > 1:
            torch.distributed.barrier()  # the first has locked the parts for all
        cache.make(make_part, f"encoding {dataset.name}", rank, processes)
        if processes > 1:
            torch.distributed.barrier()
        if rank == 0:
            save_embeddings(path, cache.join()["vectors"], dataset, producer)
            cache.remove()
            log.info("item vectors `%s` are in %s", config.init_type, path)


def _sha256(array: NDArray[np.int32]) -> str:
    return hashlib.sha256(array.data).hexdigest()


if __name__ == "__main__":
    run_command(main, Config)
