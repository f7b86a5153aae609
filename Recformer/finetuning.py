"""Finetuning in two stages, and loading a finetuned model."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.data import TrainDataset
from Recformer.exports import FINETUNED, Exports
from Recformer.item_batches import ItemTrainDataset, count_events, read_events
from Recformer.item_module import ItemwiseModule
from Recformer.model import RecformerModel
from Recformer.module import RecformerModule
from Recformer.options import FinetuneConfig
from seqrec.basics.errors import UserError
from seqrec.basics.settings import flatten
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.data.splits import Split
from seqrec.text.encoding import encode_items, own_device
from seqrec.text.sequences import HistoryReader
from seqrec.text.tokens import ItemTokens, load_item_tokens
from seqrec.training.batches import BatchModule
from seqrec.training.checkpoints import load_state
from seqrec.training.folder import RunFolder, is_first_process
from seqrec.training.module import Recommender, TrainedOn
from seqrec.training.options import TrainingConfig
from seqrec.training.record import RunRecord
from seqrec.training.trainer import fit, report, test

log = logging.getLogger(__name__)


def finetune(config: FinetuneConfig) -> None:
    """Export the untouched vectors, train both stages, test once, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    start = config.starts[-1]
    run = RunFolder(
        "Recformer", dataset, f"{start}-zeroshot" if config.test_only else start, config.training, config.protocol
    )
    split, exports = config.protocol.hold_out(dataset), exports_of(config, dataset)
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
    module = make_module(model.cpu(), items, config)  # the Trainer moves it to its device
    module.set_table(table)
    if isinstance(module, ItemwiseModule):
        module.learn_biases_of(torch.from_numpy(split.train.item_counts(dataset.num_items) > 0))
    data = make_batches(config, dataset, split, items)
    record = RunRecord(run.folder, config.training)
    if not config.test_only:
        module, record = train(module, data, run)
    module.refresh_items = False  # test with the item vectors that the selected weights were validated with
    report(run, module, record, test(module, data, config.training))


def make_module(model: RecformerModel, items: ItemTokens, config: FinetuneConfig) -> RecformerModule:
    """Return the module for how histories are read: as texts, or item by item."""
    return (ItemwiseModule if config.reads_items else RecformerModule)(model, items, config)


def exports_of(config: FinetuneConfig, dataset: Dataset) -> Exports:
    """Return where a dataset's item vectors go."""
    backbone, training = config.encoder.model_name_or_path, config.training
    return Exports(dataset, config.embedding_dir, backbone, training.precision, flatten(config), training.overwrite)


def check_exports(config: FinetuneConfig, exports: Exports) -> None:
    """Refuse a run that would replace other item vectors.

    Raises:
        UserError: If there are such, and no --overwrite.
    """
    starts = config.starts
    finetuned = [] if config.test_only or not config.refreshes else [FINETUNED]
    if any(exports.path(init_type).exists() for init_type in [*starts, *finetuned]):
        model, _ = load_backbone(*config.encoder.source, **config.encoder.changes)
        for init_type in [*starts, *finetuned]:
            if init_type in starts:
                load_start(config, model, init_type)
            exports.check(init_type, model)


def load_start(config: FinetuneConfig, model: RecformerModel, init_type: str) -> None:
    """Load the pretrained weights into a backbone for `pretrain`."""
    if init_type == "pretrain":
        assert config.pretrain_ckpt is not None
        load_weights(model, config.pretrain_ckpt)


def run_stage(
    module: RecformerModule, data: BatchModule, run: RunFolder[TrainingConfig], stage: int, to_beat: float = -math.inf
) -> tuple[RecformerModule, RunRecord]:
    """Train one stage in its own folder; return a module with its best weights and their item vectors."""
    module.refresh_items = stage == 1 and module.config.refreshes
    module.train_items = stage == 1 and module.config.train_items
    config = run.training
    if stage == 2 and module.config.second_stage_epochs:
        config = replace(config, num_epochs=module.config.second_stage_epochs)
    lightning.seed_everything(config.seed + stage, verbose=False)
    refresh = module.config.item_refresh if module.refresh_items else "never"
    log.info("stage %d: item refresh: %s", stage, refresh)
    return fit(module, data, config, run.folder / f"stage{stage}", to_beat)


def train(
    module: RecformerModule, data: BatchModule, run: RunFolder[TrainingConfig]
) -> tuple[RecformerModule, RunRecord]:
    """Run both stages, export `finetune`, and return a module with the better stage's best weights."""
    module, first = run_stage(module, data, run, 1)
    if not module.config.refreshes:
        log.info("the item vectors are the initial ones: no `finetune` vectors are exported")
    else:
        exports_of(module.config, run.dataset).write_finetuned(module.model, module.item_table)
    link_best(run, 1)
    if module.config.second_stage_epochs == 0 or module.config.itemwise.freeze_encoder:
        return module, first
    best_weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module, second = run_stage(module, data, run, 2, to_beat=first.best_score)
    second.history = first.history + second.history
    second.seconds += first.seconds
    if second.best_epoch is None or second.best_score <= first.best_score:
        log.info("stage 2 did not improve on stage 1: stage 1's weights are kept")
        module.load_state_dict(best_weights)
        second.best, second.best_epoch = first.best, first.best_epoch
    else:
        link_best(run, 2)
        second.best_epoch += len(first.history)
    return module, second


def link_best(run: RunFolder[TrainingConfig], stage: int) -> None:
    """Link `checkpoints/best.ckpt` of the run to that of a stage."""
    link = run.folder / "checkpoints" / "best.ckpt"
    if is_first_process():
        link.parent.mkdir(exist_ok=True)
        fresh = link.with_name(".best.ckpt.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("..") / f"stage{stage}" / "checkpoints" / "best.ckpt")
        fresh.replace(link)


def make_batches(config: FinetuneConfig, dataset: Dataset, split: Split, items: ItemTokens) -> BatchModule:
    """Return the training and evaluation batches of a run."""
    seed = config.training.seed
    given = split.train, items, config.encoder.max_token_num, config.finetune_negative_sample_size, seed
    reader = HistoryReader(items, config.encoder.max_token_num)
    training: TrainDataset | ItemTrainDataset
    if config.reads_items:
        training = ItemTrainDataset(*given, not config.itemwise.freeze_encoder, config.train_items)
    else:
        training = TrainDataset(*given, config.train_items)
    count = count_events if config.reads_items else reader.count_tokens
    return BatchModule(
        dataset,
        split,
        config.protocol,
        training,
        RowSampler(count(training.sequences), batch_size=config.batch_size, shuffle=True, seed=seed),
        read_events if config.reads_items else reader,
        eval_lengths=count,
        eval_max_tokens=config.eval_max_tokens,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )


def load_encoder(config: FinetuneConfig, dataset: Dataset) -> tuple[RecformerModel, ItemTokens]:
    """Return the backbone and the items' tokens."""
    model, tokenizer = load_backbone(*config.encoder.source, **config.encoder.changes)
    return model, load_item_tokens(dataset, tokenizer, *model.config.text_limits)


def restore_finetuned(
    config: FinetuneConfig, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a finetuned Recformer for use, with the item vectors of its validation.

    For a catalogue other than the one it was `trained` on, items are encoded with the weights that made those vectors.

    Raises:
        UserError: If those weights are gone.
    """
    model, items = load_encoder(config, dataset)
    if config.pretrain_ckpt is not None and (config.learning.lora_r or trained is not None):
        load_weights(model, config.pretrain_ckpt)  # the weights before training: checkpoints of updates lack them
    module = make_module(model, items, config)
    if trained is not None:
        if "item_bias" in state:
            state = state | {"item_bias": move_biases(state["item_bias"], trained.dataset, dataset)}
        state = state | {"item_table": encode_new_catalogue(module, state, trained)}
    module.load_state_dict(state)
    module.refresh_items = False
    if config.reads_items:
        return Recommender(module, read_events, count_events)
    reader = HistoryReader(items, config.encoder.max_token_num)
    return Recommender(module, reader, reader.count_tokens)


def encode_new_catalogue(module: RecformerModule, state: dict[str, Tensor], trained: TrainedOn) -> Tensor:
    """Return the (N'+1, D) vectors of a module's items, encoded with the weights that made a run's item table.

    These are the best ones of stage 1, since stage 2 keeps its table; with `--item_refresh never`, the initial ones.

    Raises:
        UserError: If the table is not of these weights.
    """
    if module.config.refreshes:
        stage = trained.run / "stage1" / "checkpoints" / "best.ckpt"
        first = load_state(stage)
        if not torch.equal(first["item_table"], state["item_table"]):
            raise UserError(f"{stage} did not make the item vectors of {trained.run}: restore the file, or train again")
        own = {name: value for name, value in state.items() if name == "item_bias"}
        module.load_state_dict(first | own | {"item_table": module.item_table})
    return encode_items(module.model, module.items, module.config.eval_max_tokens, module.config.training.precision)


def move_biases(biases: Tensor, trained: Dataset, dataset: Dataset) -> Tensor:
    """Return the (N'+1,) biases of a dataset's items from the (N+1,) of those trained on: new items have none."""
    old, new = (data.item_table().select("item", "raw_id") for data in (trained, dataset))
    both = new.join(old, on="raw_id", suffix="_before").select("item", "item_before").to_numpy()
    now, before = torch.from_numpy(both.astype(np.int64)).T
    moved = biases.new_zeros(dataset.num_items + 1)
    moved[now] = biases[before]
    return moved
