"""Train SASRec from random item vectors or from a language model's, and test it: `bash SASRec/finetune.sh --help`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytorch_lightning as pl
import torch
import tyro
from torch import Tensor

from SASRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from SASRec.model import SASRec, SASRecConfig
from seqrec.command import run_command
from seqrec.dataset import ROOT, find_dataset, split_dataset
from seqrec.embeddings import NONE, Transform, load_embeddings, transform_vectors
from seqrec.losses import Loss, catalogue_loss
from seqrec.module import BatchModule, NextItemModule, Protocol
from seqrec.ragged import RowSampler
from seqrec.training import Run, TrainingConfig, complete


@dataclass(frozen=True, slots=True)
class Config:
    """One SASRec run: data, item vectors, loss, architecture, training and evaluation."""

    dataset: str | None = None
    """Name of a prepared dataset in data/."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    init_type: str = NONE
    """Item vectors to start from: none (random), longformer, pretrain, finetune, or any file of embedding/DATASET/."""
    init_transform: Transform = "standardise"
    """What is done to those vectors first: nothing, or centre them and give them the scale of random ones."""
    freeze_items: bool = False
    """Keep the item table as it was loaded (the projection, if any, still learns)."""
    embedding_dir: Path = ROOT / "embedding"
    """Where item vectors lie."""
    loss: Loss = "ce"
    """Full softmax, one unseen negative per event, or `num_negatives` shared by the batch."""
    num_negatives: int = 256
    """Negatives of sampled_softmax."""
    batch_size: int = 128
    """Users per training batch."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    model: SASRecConfig = field(default_factory=SASRecConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        if self.freeze_items and self.init_type == NONE:
            raise ValueError(
                "--freeze_items with --init_type none would keep the item vectors random: give --init_type"
            )


class SASRecModule(NextItemModule):
    """The model with its loss and optimiser."""

    def __init__(self, model: SASRec, config: Config, num_users: int) -> None:
        super().__init__(num_users, config.protocol.metric_ks)
        self.model, self.config = model, config

    def user_vectors(self, inputs: Inputs) -> Tensor:
        """Return the last event's output of each history, (B, D)."""
        hidden: Tensor = self.model(inputs.items, inputs.positions, inputs.layout, inputs.last)
        return hidden[inputs.order]

    def item_vectors(self) -> Tensor:
        """Return the (projected) item table, (N+1, D)."""
        return self.model.item_vectors()

    def training_step(self, batch: TrainBatch) -> Tensor:
        """Return the mean loss over all events of the batch."""
        hidden = self.model(batch.items, batch.positions, batch.layout)
        items = self.model.item_vectors()
        loss = catalogue_loss(self.config.loss, hidden, items, batch.targets, batch.negatives)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.targets))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over everything that learns."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        decay = self.config.weight_decay
        return torch.optim.AdamW(parameters, self.config.lr, betas=(0.9, 0.98), weight_decay=decay, fused=True)


def main(config: Config) -> None:
    """Train, choose the best epoch on validation, test once, and write the run folder."""
    dataset = find_dataset(config.dataset, config.data_path)
    run = Run("SASRec", dataset, Path(config.init_type).stem, config.training, config.protocol)
    vectors = None
    if config.init_type != NONE:
        vectors = load_embeddings(config.init_type, dataset, config.embedding_dir)
    if not run.open(config):
        return
    pl.seed_everything(config.training.seed, verbose=False)
    maxlen = config.model.maxlen
    split = split_dataset(dataset, config.training.split)
    start = None if vectors is None else torch.from_numpy(transform_vectors(vectors, config.init_transform))
    model = SASRec(dataset.num_items, config.model, start)
    model.item_embedding.weight.requires_grad_(not config.freeze_items)
    train = TrainDataset(
        split.train, dataset.num_items, maxlen, config.loss, config.num_negatives, config.training.seed
    )
    data = BatchModule(
        dataset,
        split,
        config.protocol,
        train,
        RowSampler(train.lengths, batch_size=config.batch_size, shuffle=True, seed=config.training.seed),
        lambda histories, rows: make_inputs(histories, rows, maxlen),
        eval_lengths=lambda histories: np.minimum(histories.lengths, maxlen),
        eval_max_tokens=16384,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )
    module = SASRecModule(model, config, dataset.num_users)
    complete(run, module, data)


if __name__ == "__main__":
    run_command(main, Config)
