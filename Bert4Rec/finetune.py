"""Train BERT4Rec from random item vectors or from a language model's: `bash Bert4Rec/finetune.sh --help`."""

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

from Bert4Rec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from Bert4Rec.model import Bert4Rec, Bert4RecConfig
from seqrec.command import run_command
from seqrec.dataset import ROOT, find_dataset, split_dataset
from seqrec.embeddings import NONE, Transform, load_embeddings, transform_vectors
from seqrec.losses import Loss, catalogue_loss
from seqrec.module import BatchModule, NextItemModule, Protocol
from seqrec.ragged import RowSampler
from seqrec.training import Run, TrainingConfig, complete


@dataclass(frozen=True, slots=True)
class Config:
    """One BERT4Rec run: data, item vectors, loss, architecture, training and evaluation."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
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
    """Full softmax, one random negative per asked item, or `num_negatives` shared by the batch."""
    num_negatives: int = 256
    """Negatives of sampled_softmax."""
    mask_prob: float = 0.2
    """Share of a training sequence's items that are asked for."""
    last_only_prob: float = 0.1
    """Share of training sequences of which only the last item is asked, as in use."""
    batch_size: int = 128
    """Users per training batch."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    model: Bert4RecConfig = field(default_factory=Bert4RecConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        if self.freeze_items and self.init_type == NONE:
            raise ValueError(
                "--freeze_items with --init_type none would keep the item vectors random: give --init_type"
            )
        if not 0 < self.mask_prob < 1 or not 0 <= self.last_only_prob <= 1:
            raise ValueError(
                f"--mask_prob must lie in (0, 1) and --last_only_prob in [0, 1], got {self.mask_prob} and "
                f"{self.last_only_prob}"
            )


class Bert4RecModule(NextItemModule):
    """The model with its loss and optimiser."""

    def __init__(self, model: Bert4Rec, config: Config, num_users: int) -> None:
        super().__init__(num_users, config.protocol.metric_ks)
        self.model, self.config = model, config

    def _predict(self, inputs: Inputs) -> Tensor:
        hidden: Tensor = self.model(
            inputs.items, inputs.masked, inputs.positions, inputs.layout, inputs.asked, inputs.asked_layout
        )
        return hidden

    def user_vectors(self, inputs: Inputs) -> Tensor:
        """Return the appended event's output of each history, (B, D)."""
        return self._predict(inputs)[inputs.order]

    def item_vectors(self) -> Tensor:
        """Return the table that scores are taken with."""
        return self.model.item_vectors()

    def training_step(self, batch: TrainBatch) -> Tensor:
        """Return the mean loss over all asked items of the batch."""
        hidden, items = self._predict(batch.inputs), self.model.item_vectors()
        loss = catalogue_loss(self.config.loss, hidden, items, batch.targets, batch.negatives)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.targets))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over everything that learns."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(parameters, self.config.lr, weight_decay=self.config.weight_decay, fused=True)


def main(config: Config) -> None:
    """Train, choose the best epoch on validation, test once, and write the run folder."""
    dataset = find_dataset(config.dataset, config.data_path)
    run = Run("Bert4Rec", dataset, Path(config.init_type).stem, config.training, config.protocol)
    vectors = None
    if config.init_type != NONE:
        vectors = load_embeddings(config.init_type, dataset, config.embedding_dir)
    if not run.open(config):
        return
    pl.seed_everything(config.training.seed, verbose=False)
    maxlen = config.model.maxlen
    split = split_dataset(dataset, config.training.split)
    start = None if vectors is None else torch.from_numpy(transform_vectors(vectors, config.init_transform))
    model = Bert4Rec(dataset.num_items, config.model, start)
    model.item_embedding.weight.requires_grad_(not config.freeze_items)
    train = TrainDataset(
        split.train,
        dataset.num_items,
        maxlen,
        config.mask_prob,
        config.last_only_prob,
        config.loss,
        config.num_negatives,
        config.training.seed,
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
    module = Bert4RecModule(model, config, dataset.num_users)
    complete(run, module, data)


if __name__ == "__main__":
    run_command(main, Config)
