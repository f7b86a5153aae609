"""Finetune Recformer in two stages, test it and export its item vectors: `bash Recformer/finetune.sh --help`.

Stage 1 encodes all items anew after each epoch, or as --item_refresh says; stage 2 starts from its best epoch and keeps
that epoch's item vectors fixed. Both share the best validation score, so stage 2 counts only where it is better.
`embedding/<dataset>/` gets `longformer` (the backbone untouched), `pretrain` (where --pretrain_ckpt is given) and
`finetune` (stage 1's best epoch, encoded by that epoch's own weights).
"""

import logging
import math
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.data import TrainBatch, TrainDataset
from Recformer.exports import FINETUNED, Exports
from Recformer.model import RecformerModel
from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.basics.settings import flatten
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.splits import Split
from seqrec.nn.losses import full_softmax, sampled_softmax
from seqrec.text.encoding import encode_items, own_device
from seqrec.text.options import EncoderOptions, LearningOptions
from seqrec.text.sequences import HistoryReader, TokenBatch
from seqrec.text.tokens import ItemTokens, load_item_tokens
from seqrec.training.batches import BatchModule
from seqrec.training.checkpoints import load_state
from seqrec.training.encoder_module import EncoderModule
from seqrec.training.folder import RunFolder, is_first_process
from seqrec.training.module import Recommender, TrainedOn, share_of_mean
from seqrec.training.options import TrainingConfig
from seqrec.training.record import RunRecord
from seqrec.training.trainer import fit, report, test

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """One finetuning run."""

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    pretrain_ckpt: Path | None = None
    """Weights of a pretrained Recformer to start from; without it, finetuning starts from the backbone."""
    embedding_dir: Path = ROOT / "embedding"
    """Where item vectors are exported to."""
    finetune_negative_sample_size: int = -1
    """Negatives of the training softmax, shared by a batch; below 1 takes all items."""
    batch_size: int = 16
    """Users per training batch; each gives one target per epoch."""
    eval_max_tokens: int = 8192
    """Tokens per batch in evaluation and item encoding."""
    item_refresh: str = "epoch"
    """How often stage 1 encodes the items anew: epoch, steps:N (optimiser steps), or never."""
    train_items: bool = False
    """In stage 1 tell a target from the batch's other targets and sampled negatives, which learn as histories do."""
    second_stage_epochs: int | None = None
    """At most so many epochs in stage 2; by default as many as in stage 1, 0 leaves it out."""
    test_only: bool = False
    """Do not train: test the weights given (zero-shot) and export their vectors."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    learning: LearningOptions = field(default_factory=lambda: LearningOptions(warmup_steps=100))
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(num_epochs=16, patience=5))
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size", "eval_max_tokens")
        require_at_least(0, self, "second_stage_epochs")
        if not re.fullmatch(r"epoch|never|steps:[1-9]\d*", self.item_refresh):
            raise UserError(f"--item_refresh must be epoch, steps:N with N at least 1, or never: {self.item_refresh!r}")
        if (epochs := self.second_stage_epochs or self.training.eval_every) < self.training.eval_every:
            raise UserError(
                f"--second_stage_epochs {epochs} is less than --eval_every {self.training.eval_every}: no epoch of "
                "stage 2 would be validated; 0 leaves it out"
            )
        if self.train_items and self.item_refresh == "never":
            raise UserError("--train_items changes the items' vectors, --item_refresh never keeps them: drop one")

    @property
    def starts(self) -> list[str]:
        """Names of the vectors of weights as they are given; training starts from the last."""
        return ["longformer"] if self.pretrain_ckpt is None else ["longformer", "pretrain"]

    def exports(self, dataset: Dataset) -> Exports:
        """Return where a dataset's item vectors go."""
        backbone, training = self.encoder.model_name_or_path, self.training
        return Exports(dataset, self.embedding_dir, backbone, training.precision, flatten(self), training.overwrite)

    @property
    def refresh_steps(self) -> int | None:
        """Optimiser steps after which stage 1 encodes the items, beside every epoch's start."""
        mode, _, steps = self.item_refresh.partition(":")
        return int(steps) if mode == "steps" else None


class RecformerModule(EncoderModule):
    """The text encoder for histories over a table of encoded items, with loss and optimiser."""

    item_table: Tensor
    model: RecformerModel

    def __init__(self, model: RecformerModel, items: ItemTokens, config: Config) -> None:
        super().__init__(model, model, config.learning, config.protocol.metric_ks)
        self.items, self.config = items, config
        self.refresh_items = True
        self.train_items = False
        self._encoded_at: int | None = None
        self.register_buffer("item_table", torch.zeros(items.num_items + 1, model.config.hidden_size))
        model.freeze_unread()

    def encode(self) -> None:
        """Bring the item table up to date with the weights, unless it is or is to stay as it was."""
        if self.refresh_items and self._encoded_at != self.global_step:
            tokens, precision = self.config.eval_max_tokens, self.config.training.precision
            share = (0, 1) if self._trainer is None else (self.global_rank, self.trainer.world_size)
            self.set_table(encode_items(self.model, self.items, tokens, precision, share))

    def set_table(self, table: Tensor) -> None:
        """Take (N+1, D) item vectors that the present weights give."""
        self.item_table.copy_(table)
        self._encoded_at = self.global_step

    def user_vectors(self, inputs: TokenBatch) -> Tensor:
        """Return (B, D) normalised and divided by the temperature."""
        pooled: Tensor = self.model(inputs).pooled
        return F.normalize(pooled.float(), dim=1) / self.config.encoder.temp

    def item_vectors(self) -> Tensor:
        """Return (N+1, D) normalised rows of the table."""
        self.encode()
        return F.normalize(self.item_table, dim=1)

    def on_train_epoch_start(self) -> None:
        """Encode the items; after a validation they already are, by the same weights."""
        self.encode()

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        """Encode the items when their turn has come."""
        steps = self.config.refresh_steps
        if steps is not None and self.global_step % steps == 0:
            self.encode()

    def training_step(self, batch: TrainBatch) -> Tensor:
        """Return the mean loss, or of several processes this one's share.

        The gradient goes through the histories, and through the batch's items if asked for.
        """
        loss, total = share_of_mean(self._loss(self.user_vectors(batch.inputs), batch), batch.num_counted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=total)
        return loss

    def _loss(self, users: Tensor, batch: TrainBatch) -> Tensor:
        if self.train_items and batch.classes is not None:
            # The table's items are no classes here: being older than the batch's, they would be told by that alone.
            classes = F.normalize(self.model(batch.classes.texts).pooled.float(), dim=1)
            everything = torch.arange(len(classes), device=classes.device)
            return sampled_softmax(users, classes, batch.classes.own, everything, batch.classes.log_chance)
        items, log_chance = batch.negatives
        if not len(items):
            return full_softmax(users, F.normalize(self.item_table, dim=1), batch.targets)
        ids, place = torch.cat([batch.targets, items]).unique(return_inverse=True)
        targets, negatives = place.split([len(batch.targets), len(items)])
        return sampled_softmax(users, F.normalize(self.item_table[ids], dim=1), targets, negatives, log_chance)


def check_exports(config: Config, exports: Exports) -> None:
    """Refuse a run whose item vectors would take the place of other ones.

    Raises:
        UserError: If there are such, and no --overwrite.
    """
    starts = config.starts
    finetuned = [] if config.test_only or config.item_refresh == "never" else [FINETUNED]
    if any(exports.path(init_type).exists() for init_type in [*starts, *finetuned]):
        model, _ = load_backbone(*config.encoder.source, **config.encoder.changes)
        for init_type in [*starts, *finetuned]:
            if init_type in starts:
                load_start(config, model, init_type)
            exports.check(init_type, model)


def load_start(config: Config, model: RecformerModel, init_type: str) -> None:
    """Give a backbone the pretrained weights where they are asked for."""
    if init_type == "pretrain":
        assert config.pretrain_ckpt is not None
        load_weights(model, config.pretrain_ckpt)


def run_stage(
    module: RecformerModule, data: BatchModule, run: RunFolder, stage: int, to_beat: float = -math.inf
) -> tuple[RecformerModule, RunRecord]:
    """Train one stage in its own folder; return a module with its best weights and their item vectors."""
    module.refresh_items = stage == 1 and module.config.item_refresh != "never"
    module.train_items = stage == 1 and module.config.train_items
    config = run.training
    if stage == 2 and module.config.second_stage_epochs:
        config = replace(config, num_epochs=module.config.second_stage_epochs)
    lightning.seed_everything(config.seed + stage, verbose=False)
    refresh = module.config.item_refresh if module.refresh_items else "never"
    log.info("stage %d: items encoded anew: %s", stage, refresh)
    return fit(module, data, config, run.folder / f"stage{stage}", to_beat)


def train(module: RecformerModule, data: BatchModule, run: RunFolder) -> tuple[RecformerModule, RunRecord]:
    """Run both stages, export `finetune`, and return a module with the better stage's best weights."""
    module, first = run_stage(module, data, run, 1)
    if module.config.item_refresh == "never":
        log.info("the item vectors were to stay as they were: there are no `finetune` ones to export")
    else:
        module.config.exports(run.dataset).write_finetuned(module.model, module.item_table)
    link_best(run, 1)
    if module.config.second_stage_epochs == 0:
        return module, first
    best_weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module, second = run_stage(module, data, run, 2, to_beat=first.best_score)
    second.history = first.history + second.history
    second.seconds += first.seconds
    if second.best_epoch is None or second.best_score <= first.best_score:
        log.info("stage 2 did not improve on stage 1: its weights are left aside")
        module.load_state_dict(best_weights)
        second.best, second.best_epoch = first.best, first.best_epoch
    else:
        link_best(run, 2)
        second.best_epoch += len(first.history)
    return module, second


def link_best(run: RunFolder, stage: int) -> None:
    """Let `checkpoints/best.ckpt` of the run be that of one of its stages."""
    link = run.folder / "checkpoints" / "best.ckpt"
    if is_first_process():
        link.parent.mkdir(exist_ok=True)
        fresh = link.with_name(".best.ckpt.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("..") / f"stage{stage}" / "checkpoints" / "best.ckpt")
        fresh.replace(link)


def main(config: Config) -> None:
    """Export the untouched vectors, train both stages, test once, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    start = config.starts[-1]
    run = RunFolder(
        "Recformer", dataset, f"{start}-zeroshot" if config.test_only else start, config.training, config.protocol
    )
    split, exports = config.protocol.hold_out(dataset), config.exports(dataset)
    if not run.is_finished:
        check_exports(config, exports)
    if not run.open(config):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    model, items = load_encoder(config, dataset)

    def encode() -> Tensor:
        model.to(own_device(config.training.accelerator))
        return encode_items(model, items, config.eval_max_tokens, config.training.precision)

    for init_type in config.starts:
        load_start(config, model, init_type)
        table = exports.start(init_type, model, encode)
    module = RecformerModule(model.cpu(), items, config)  # whence the Trainer puts it where it belongs
    module.set_table(table)
    data = make_batches(config, dataset, split, items)
    record = RunRecord(run.folder, config.training)
    if not config.test_only:
        module, record = train(module, data, run)
    module.refresh_items = False  # test with the item vectors that the selected weights were validated with
    report(run, module, record, test(module, data, config.training))


def load_encoder(config: Config, dataset: Dataset) -> tuple[RecformerModel, ItemTokens]:
    """Return the backbone and the items as it reads them."""
    model, tokenizer = load_backbone(*config.encoder.source, **config.encoder.changes)
    return model, load_item_tokens(dataset, tokenizer, config.encoder.max_attr_num, config.encoder.max_attr_length)


def restore(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a finetuned Recformer for use; its item vectors are those that the weights were chosen with.

    For a catalogue other than the one it was `trained` on, items are encoded by the weights that made those vectors.

    Raises:
        UserError: If those weights are gone.
    """
    model, items = load_encoder(config, dataset)
    if config.pretrain_ckpt is not None and (config.learning.lora_r or trained is not None):
        load_weights(model, config.pretrain_ckpt)  # what the run began with: no checkpoint of updates has it
    module = RecformerModule(model, items, config)
    if trained is not None:
        state = state | {"item_table": encode_new_catalogue(module, state, trained)}
    module.load_state_dict(state)
    module.refresh_items = False
    reader = HistoryReader(items, config.encoder.max_token_num)
    return Recommender(module, reader, reader.count_tokens)


def encode_new_catalogue(module: RecformerModule, state: dict[str, Tensor], trained: TrainedOn) -> Tensor:
    """Return the (N'+1, D) vectors of a module's items by the weights that made a run's item table.

    Those are the best ones of stage 1, which stage 2 keeps the table of; with `--item_refresh never`, the first ones.

    Raises:
        UserError: If the table is not of these weights.
    """
    if module.config.item_refresh != "never":
        stage = trained.run / "stage1" / "checkpoints" / "best.ckpt"
        first = load_state(stage)
        if not torch.equal(first["item_table"], state["item_table"]):
            raise UserError(f"{stage} did not make the item vectors of {trained.run}: restore the file, or train again")
        module.load_state_dict(first | {"item_table": module.item_table})
    return encode_items(module.model, module.items, module.config.eval_max_tokens, module.config.training.precision)


def make_batches(config: Config, dataset: Dataset, split: Split, items: ItemTokens) -> BatchModule:
    """Return the training and evaluation batches of a run."""
    training = TrainDataset(
        split.train,
        items,
        config.encoder.max_token_num,
        config.finetune_negative_sample_size,
        config.training.seed,
        config.train_items,
    )
    reader = HistoryReader(items, config.encoder.max_token_num)
    lengths = reader.count_tokens(training.sequences)
    return BatchModule(
        dataset,
        split,
        config.protocol,
        training,
        RowSampler(lengths, batch_size=config.batch_size, shuffle=True, seed=config.training.seed),
        reader,
        eval_lengths=reader.count_tokens,
        eval_max_tokens=config.eval_max_tokens,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )


if __name__ == "__main__":
    run_command(main, Config)
