"""The item vectors that finetuning writes. Shapes: N items, D width."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Recformer.config import encoding_options
from Recformer.model import RecformerModel
from seqrec.basics.files import exclusive
from seqrec.basics.precision import Precision
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import (
    Producer,
    embedding_path,
    find_differences,
    load_embeddings,
    needs_saving,
    save_embeddings,
)
from seqrec.text.encoding import weights_sha256
from seqrec.training.folder import is_first_process

log = logging.getLogger(__name__)
FINETUNED = "finetune"
_NO_PART = {
    *("dataset", "data_path", "embedding_dir", "runs_dir", "run_name", "resume", "overwrite", "progress_bar"),
    *("dataloader_num_workers", "second_stage_epochs", "test_only"),
}
"""Flags that have no part in what the first stage makes of the encoder, or that hashes stand for."""


@dataclass(frozen=True, slots=True)
class Exports:
    """Where a run's item vectors go, and what they depend on."""

    dataset: Dataset
    folder: Path
    """Of the item vectors of all datasets."""
    backbone: str
    precision: Precision
    flags: dict[str, Any]
    """All flags of the run, flat."""
    overwrite: bool
    """Replace vectors of other weights or flags."""

    def path(self, init_type: str) -> Path:
        """Return the file of some vectors."""
        return embedding_path(self.dataset, init_type, self.folder)

    def check(self, init_type: str, model: RecformerModel) -> None:
        """Make sure, before anything is trained, that no other vectors lie where a model's are to go.

        Raises:
            UserError: If there are such, and they are not to be overwritten.
        """
        needs_saving(self.path(init_type), self.dataset, self._producer(init_type, model), self.overwrite)

    def start(self, init_type: str, model: RecformerModel, encode: Callable[[], Tensor]) -> Tensor:
        """Return (N+1, D) vectors of weights as they are given; the first process that comes makes and writes them."""
        path, producer = self.path(init_type), self._producer(init_type, model)
        with exclusive(path.with_name(f".{init_type}.lock")):
            if needs_saving(path, self.dataset, producer, self.overwrite):
                save_embeddings(path, encode().cpu().numpy(), self.dataset, producer)
                log.info("item vectors `%s` are in %s", init_type, path)
            return torch.from_numpy(load_embeddings(init_type, self.dataset, self.folder))

    def write_finetuned(self, model: RecformerModel, table: Tensor) -> None:
        """Write the (N+1, D) vectors of finetuned weights, in the first process alone."""
        if not is_first_process():
            return
        path = self.path(FINETUNED)
        producer = self._producer(FINETUNED, model, weights_sha256(model))
        different = find_differences(path, self.dataset, producer)
        if different and not self.overwrite:
            log.warning(
                "%s is left as it is: it was made by the same flags, and yet differs (%s). --overwrite replaces it",
                path,
                "; ".join(different),
            )
        elif different is None or different:
            save_embeddings(path, table.cpu().numpy(), self.dataset, producer)
            log.info("item vectors `%s` are in %s", FINETUNED, path)

    def _producer(self, init_type: str, model: RecformerModel, weights: str | None = None) -> Producer:
        options = encoding_options(model.config, self.backbone, self.precision)
        if init_type != FINETUNED:
            return Producer("Recformer/finetune.py", weights_sha256(model), options)
        flags = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in self.flags.items()
            if name not in _NO_PART
        }
        return Producer("Recformer/finetune.py", weights, flags | options | {"data": self.dataset.sequences_sha256})
