"""PLMSASRec as a Lightning module: loss, optimiser, evaluation, and its run.

Shapes: N items, R distinct items of a batch, E events, B users, d width of SASRec.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from PLMSASRec.data import Inputs, TrainBatch, TrainDataset, make_inputs
from PLMSASRec.language_model import build_items
from PLMSASRec.model import PLMSASRec, TextVectors, numbered
from PLMSASRec.options import Config
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import progress
from seqrec.basics.settings import flatten
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.splits import Split
from seqrec.data.vectors import Producer, embedding_path, needs_saving, save_embeddings
from seqrec.nn.losses import catalogue_loss
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.text.encoding import weights_sha256
from seqrec.text.lora import drop_frozen
from seqrec.training.batches import BatchModule
from seqrec.training.checkpoints import load_state
from seqrec.training.folder import RunFolder, is_first_process
from seqrec.training.module import NextItemModule, Recommender, TrainedOn, share_of_mean
from seqrec.training.sharding import whole_weights
from seqrec.training.trainer import fit, report, test

log = logging.getLogger(__name__)
UPPER, PROMPTS = "model.items.upper.", "model.items.prompts."
"""Begin the names of the language model's trained blocks, and of prompts, in a state."""
OFFSETS = "model.items.offsets.weight"
"""Name of the items' offsets in a state."""
EVAL_EVENTS = 16_384
"""Events per evaluation batch."""
ITEMS_AT_A_TIME = 1_024
"""Items encoded at a time outside training."""


class PLMSASRecModule(NextItemModule):
    """Every event of a training sequence predicts the next; in use, the last one does."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        """Build the model for a catalogue, with the language model's own weights."""
        super().__init__(config.protocol.metric_ks)
        self.config = config
        items, self.read_texts = build_items(config, dataset)
        if config.item_offset:
            items.add_offsets(config.model.sasrec_hidden_size)
        self.model = PLMSASRec(items, config.model, config.head)
        self._table: Tensor | None = None
        self._pooled: Tensor | None = None
        self._pooled_at: int | None = None

    # Training

    def training_step(self, batch: TrainBatch) -> Tensor:
        """Return the mean loss over all targets of the batch, or of several processes this one's share."""
        self._table = None
        objective, model = self.config.objective, self.model
        vectors = model.items(batch.rows, batch.texts)  # (R, d)
        hidden = model.encoder(F.embedding(batch.events, vectors), batch.positions, batch.layout)
        targets, negatives = batch.targets, batch.negatives
        if batch.classes is not None:
            own = self._from_epoch_start(batch.classes) if self.takes_pooled else vectors
            classes = model.class_vectors(F.pad(own, (0, 0, 1, 0)))
        elif model.head == "tied":
            classes = model.class_vectors(vectors)
        elif objective.loss == "ce":
            classes = model.class_vectors(None)
        else:
            rows, places = torch.cat([targets, negatives]).unique(return_inverse=True)
            targets, negatives = places.split([len(targets), len(negatives)])
            classes = model.class_vectors(None, rows)
        hidden, classes = self._scaled(model.with_bias(hidden)), self._normed(classes)
        num_items = model.items.num_items
        loss = catalogue_loss(objective, hidden, classes, targets, negatives, batch.log_chance, num_items)
        loss, total = share_of_mean(loss, batch.num_counted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=total)
        return loss

    def _from_epoch_start(self, rows: Tensor) -> Tensor:
        """Return (C, d) vectors of the pooled states that the items had at the epoch's start.

        For all classes alike: were only the batch's own new, the model would tell targets by that.
        """
        items = self.model.items
        assert isinstance(items, TextVectors) and self._pooled is not None
        return items.project(F.embedding(rows, self._pooled), rows)

    def on_train_epoch_start(self) -> None:
        """Encode the items if the softmax takes the pooled states of this moment; after a validation they are there."""
        if self.takes_pooled and self._pooled_at != self.global_step:
            self.item_vectors()

    @property
    def takes_pooled(self) -> bool:
        """Whether the classes of the softmax are pooled states of the epoch's start."""
        is_full = self.config.head == "tied" and self.config.objective.loss == "ce"
        return is_full and isinstance(self.model.items, TextVectors) and self.config.item_refresh == "epoch"

    def _normed(self, vectors: Tensor) -> Tensor:
        return vectors if self.config.objective.temp is None else F.normalize(vectors, dim=1)

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Normalise and divide by the temperature, if there is one."""
        temp = self.config.objective.temp
        return hidden if temp is None else F.normalize(hidden, dim=1) / temp

    def configure_optimizers(self) -> Any:
        """Return AdamW: the language model's weights with rates that fall from block to block, all others with one."""
        config, options = self.config, self.config.items
        groups: list[dict[str, Any]] = []
        own: list[Tensor] = []
        for below_top, parameters in weights_by_block(self.model.items).items():
            rate = options.plm_lr * options.plm_lr_layer_decay**below_top
            split = decay_weights(nn.ParameterList(parameters), options.plm_weight_decay)
            groups += [group | {"lr": rate} for group in split]
            own += parameters
        if (offsets := self.model.items.offsets) is not None:
            rate = config.lr / 10 if config.offset_lr is None else config.offset_lr
            groups.append({"params": [offsets.weight], "lr": rate, "weight_decay": config.weight_decay})
            own.append(offsets.weight)
        groups += decay_weights(self, config.weight_decay, leave_out=own)
        optimizer = torch.optim.AdamW(groups, config.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, config.warmup_steps, config.schedule)

    # Use

    @torch.no_grad()
    def encode_items(self) -> Tensor:
        """Return the vectors of all items in SASRec, (N + 1, d), row 0 zero."""
        items = self.model.items
        table = torch.zeros(items.num_items + 1, self.config.model.sasrec_hidden_size, device=self.device)
        batches: list[NDArray[np.int64]] = [np.arange(1, items.num_items + 1)]
        if self.read_texts is not None:
            batches = np.array_split(batches[0], range(ITEMS_AT_A_TIME, items.num_items, ITEMS_AT_A_TIME))
        was_training = items.training
        items.eval()
        pooled: list[Tensor] = []
        for ids in progress(batches, desc="encoding items", unit="batch") if len(batches) > 1 else batches:
            rows = torch.from_numpy(ids).to(self.device)
            if isinstance(items, TextVectors) and self.read_texts is not None:
                pooled.append(items.pool(self.read_texts(ids).to(self.device)).float())
                table[rows] = items.project(pooled[-1], rows).float()
            else:
                table[rows] = items(rows, None).float()
        items.train(was_training)
        if pooled and self.takes_pooled:
            self._pooled = F.pad(torch.cat(pooled), (0, 0, 1, 0))  # row 0 is padding
            self._pooled_at = self.global_step
        return table

    def item_vectors(self) -> Tensor:
        """Return the item vectors for scoring, (N + 1, d), or (N + 1, d + 1) with an untied head."""
        with whole_weights(self):
            self._table = self.encode_items()
            return self._normed(self.model.class_vectors(self._table)).clone()

    def user_vectors(self, inputs: Inputs) -> Tensor:
        """Return the user vectors, (B, d), or (B, d + 1): scores are their dot products with the item vectors."""
        if self._table is None:
            with whole_weights(self):
                self._table = self.encode_items()
        vectors = F.embedding(inputs.items, self._table.to(self.device))
        hidden = self.model.encoder(vectors, inputs.positions, inputs.layout, inputs.last)
        return self._scaled(self.model.with_bias(hidden))[inputs.order]

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return the latest events of some histories."""
        return make_inputs(histories, rows, self.config.model.sasrec_seq_len)

    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""
        return np.minimum(histories.lengths, self.config.model.sasrec_seq_len)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen weights, which the language model's own files hold."""
        if "state_dict" in checkpoint:
            checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a state; frozen weights, which a checkpoint lacks, stay as they are."""
        self._table = self._pooled_at = None
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        own = {name: tensor for name, tensor in self.state_dict().items() if name in frozen}
        return super().load_state_dict(own | dict(state_dict), strict, assign)


def weights_by_block(items: nn.Module) -> dict[int, list[nn.Parameter]]:
    """Return the language model's trained weights by how far their block is from the top, from 1.

    The embeddings count as the lowest block, what follows the blocks as the last. Low-rank updates are no weights of
    its own.
    """
    found: dict[int, list[nn.Parameter]] = {}
    if (
        not isinstance(items, TextVectors)
        or items.upper is None
        or any("lora_" in n for n, _ in items.named_parameters())
    ):
        return found
    for number, parameter in numbered(items.upper):
        if parameter.requires_grad:
            below_top = items.upper.architecture.num_blocks - max(number, 0)
            found.setdefault(below_top, []).append(parameter)
    return found


def choose_users(split: Split, dataset: Dataset, least: int, most: int | None) -> Split:
    """Return a split without users who have fewer or more interactions than asked for.

    Raises:
        UserError: If none is left.
    """
    lengths = np.diff(dataset.offsets)
    kept = (lengths >= least) & (lengths <= (most or np.iinfo(np.int64).max))
    parts = [view.select(kept[view.users]) for view in (split.train, split.valid, split.test)]
    if not all(len(part) for part in parts):
        raise UserError(f"no user of {dataset.name} has {least} to {most or 'any number of'} interactions")
    return Split(split.name, *parts)


def make_batches(module: PLMSASRecModule, dataset: Dataset, split: Split) -> BatchModule:
    """Return a run's batches of training and evaluation."""
    config = module.config
    training = TrainDataset(
        split.train,
        dataset.num_items,
        config.model.sasrec_seq_len,
        config.objective,
        config.training.seed,
        config.head == "tied",
        module.read_texts,
        not module.takes_pooled,
    )
    return BatchModule(
        dataset,
        split,
        config.protocol,
        training,
        RowSampler(training.lengths, batch_size=config.batch_size, shuffle=True, seed=config.training.seed),
        module.make_inputs,
        eval_lengths=module.count_events,
        eval_max_tokens=EVAL_EVENTS,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )


def run_name(config: Config) -> str:
    """Return the name of runs that differ only in the seed: what the items are to the model."""
    if config.input_type == "id":
        return "id"
    options, n = config.items, config.items.plm_last_n_unfreeze
    name = options.plm_name.strip("/").rpartition("/")[2]
    trained = {0: "frozen", -1: "all"}.get(n, f"last{n}")
    also = {"prompt": config.prompt.use_prompt, "offset": config.item_offset}
    return "-".join([name, "lora" if options.lora_r else trained, *(part for part, there in also.items() if there)])


def train(config: Config) -> None:
    """Train, choose the best epoch on validation, test once, write the run folder and, if asked for, the vectors."""
    dataset = open_dataset(config.dataset, config.data_path)
    run = RunFolder("PLMSASRec", dataset, run_name(config), config.training, config.protocol)
    split = choose_users(config.protocol.hold_out(dataset), dataset, config.min_item_seq_len, config.max_item_seq_len)
    if not run.open(config):
        return
    replaces = config.training.resume or config.training.overwrite  # a resumed run compares at its end
    if config.export_name is not None and not replaces and export_path(config, dataset).exists():
        raise UserError(
            f"{export_path(config, dataset)} is there already: give another --export_name, or --overwrite to replace it"
        )
    lightning.seed_everything(config.training.seed, verbose=False)
    module = PLMSASRecModule(config, dataset)
    if config.start_from is not None:
        take_weights(module, config.start_from, dataset)
    data = make_batches(module, dataset, split)
    module, record = fit(module, data, config.training, run.folder)
    seconds = test(module, data, config.training)
    if config.export_name is not None and is_first_process():
        export(module, dataset)
    report(run, module, record, seconds)


def take_weights(module: PLMSASRecModule, run: Path, dataset: Dataset) -> None:
    """Take over the best weights of an earlier run; what it did not train of the language model stays as it is.

    Raises:
        MissingFileError: If the folder holds no finished run.
        UserError: If the run was on other items, or its model is not this one's but for what is frozen.
    """
    file = run / "metrics.json"
    if not file.is_file():
        raise MissingFileError(f"--start_from {run} holds no finished run: metrics.json is missing")
    metrics = read_json_object(file, "run it again", {"family": str, "protocol": dict})
    if metrics["protocol"].get("item_ids_sha256") != dataset.item_ids_sha256:
        raise UserError(f"--start_from {run} was trained on other items than {dataset.path}")
    state, own = load_state(run / "checkpoints" / "best.ckpt"), module.state_dict()
    odd = [name for name in state if name not in own or own[name].shape != state[name].shape]
    new = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and name not in state
        and not name.startswith((UPPER, PROMPTS))
        and "lora_" not in name
    ]
    if metrics["family"] != "PLMSASRec" or odd or new:
        differing = ", ".join([*odd, *new][:6]) or metrics["family"]
        raise UserError(f"--start_from {run} is of another model; they differ in {differing}: give the same flags")
    module.load_state_dict(own | state)


def export_path(config: Config, dataset: Dataset) -> Path:
    """Return the file of the vectors that a run exports."""
    return embedding_path(dataset, f"plm-{config.export_name}", config.embedding_dir)


def export(module: PLMSASRecModule, dataset: Dataset) -> None:
    """Write the items' vectors as SASRec reads them, (N + 1, d), for families that start from vectors."""
    config = module.config
    producer = Producer(
        "PLMSASRec/finetune.py", weights_sha256(module), {"flags": str(sorted(flatten(config).items()))}
    )
    path = export_path(config, dataset)
    if needs_saving(path, dataset, producer, config.training.overwrite):
        save_embeddings(path, module.encode_items().cpu().numpy(), dataset, producer)
    log.info("item vectors `plm-%s` are in %s", config.export_name, path)


def restore_trained(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained model for use, on the catalogue that it was `trained` on or on another one.

    Raises:
        UserError: If the model cannot serve the other catalogue.
    """
    if trained is not None and (config.input_type == "id" or config.head == "untied"):
        raise UserError(
            "this model has weights for each item of its training, so it cannot score new ones: train with "
            "--input_type text --head tied to serve new items"
        )
    module = PLMSASRecModule(config, dataset)
    if trained is not None and config.item_offset:
        state = state | {OFFSETS: _carry_over(state[OFFSETS], trained.dataset, dataset)}
    module.load_state_dict(state)
    return Recommender(module, module.make_inputs, module.count_events)


def _carry_over(offsets: Tensor, before: Dataset, now: Dataset) -> Tensor:
    """Return (N' + 1, d) offsets of another catalogue: those of its known items, zero for new ones."""
    place = {raw_id: row for row, raw_id in enumerate(before.item_table()["raw_id"], 1)}
    rows = [0, *(place.get(raw_id, 0) for raw_id in now.item_table()["raw_id"])]
    return offsets[torch.tensor(rows)]
