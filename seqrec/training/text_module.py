"""The base of models over items that a language model encodes: loss, optimiser, evaluation, and their run.

A family adds what reads histories of item vectors, its batches, and its predictions for them.
Shapes: N items, R distinct items of a batch, E events, B users, d width of the recommender.
"""

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import progress
from seqrec.basics.settings import flatten
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.splits import Split
from seqrec.data.vectors import Producer, embedding_path, needs_saving, save_embeddings
from seqrec.items.language_model import ReadTexts, build_items
from seqrec.items.options import Head
from seqrec.items.recommender import TextRecommender
from seqrec.items.vectors import ItemVectors, TextVectors, numbered
from seqrec.nn.losses import catalogue_loss
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.text.encoding import weights_sha256
from seqrec.text.lora import drop_frozen
from seqrec.training.batches import BatchModule, history_batches
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
ITEMS_AT_A_TIME = 1_024
"""Items encoded at a time outside training."""


class TextModule(NextItemModule, ABC):
    """Item vectors and what reads histories of them; families implement the abstract methods."""

    family: ClassVar[str]
    """Name of the family's folder."""

    def __init__(self, config: Any, dataset: Dataset) -> None:
        """Build the model for a catalogue, with the language model's own weights.

        Args:
            config: A family's flags. Of them `items`, `prompt`, `cache`, `learning`, `objective`, `training` and
                `protocol` are groups, `batch_size`, `lr`, `weight_decay`, `schedule`, `warmup_steps` and
                `repeat_score` single ones.
            dataset: The catalogue.
        """
        super().__init__(config.protocol.metric_ks)
        self.config = config
        encoder = self.build_encoder()
        self.width = int(encoder.width)
        items, self.read_texts = self.build_items(dataset)
        if config.learning.item_offset:
            items.add_offsets(self.width)
        self.model = TextRecommender(items, encoder, self.width, self.head, self.deviation)
        self.score_repeats(config.repeat_score)
        self._table: Tensor | None = None
        self._pooled: Tensor | None = None
        self._pooled_at: int | None = None

    @abstractmethod
    def build_encoder(self) -> Any:
        """Return what reads histories of item vectors, with their `width`."""

    @property
    def head(self) -> Head:
        """What scores are taken with."""
        return "tied"

    @property
    def deviation(self) -> float:
        """Standard deviation of the initial weights of projection, prompts and head."""
        return 0.02

    def build_items(self, dataset: Dataset) -> tuple[ItemVectors, ReadTexts | None]:
        """Return what makes the items' vectors, and what reads the texts for it, if it reads any."""
        config = self.config
        return build_items(config.items, config.prompt, config.cache, dataset, self.width)

    @abstractmethod
    def training_data(self, train: Histories, num_items: int) -> Any:
        """Return the training histories as a dataset of batches by `BatchKey`, with (n,) `lengths` of its sequences."""

    @abstractmethod
    def predict(self, batch: Any, vectors: Tensor) -> Tensor:
        """Return the vectors that predict the targets of a training batch, (E, d), from those of its events, (E, d)."""

    @abstractmethod
    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Any:
        """Return the argument of `user_vectors` for (B,) rows of a view."""

    @abstractmethod
    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""

    @abstractmethod
    def read(self, inputs: Any) -> Tensor:
        """Return the vector that predicts the next item of each history, (B, d)."""

    # Training

    def training_step(self, batch: Any) -> Tensor:
        """Return the mean loss over all targets of the batch, or of several processes this one's share."""
        self._table = None
        objective, model, items = self.config.objective, self.model, batch.items
        vectors = model.items(items.rows, items.texts)  # (R, d)
        hidden = self.predict(batch, F.embedding(items.events, vectors))
        targets, negatives = items.targets, items.negatives
        if items.classes is not None:
            own = self._from_epoch_start(items.classes) if self.takes_pooled else vectors
            classes = model.class_vectors(F.pad(own, (0, 0, 1, 0)))
        elif model.head == "tied":
            classes = model.class_vectors(vectors)
        elif objective.loss == "ce":
            classes = model.class_vectors(None)
        else:
            rows, places = torch.cat([targets, negatives]).unique(return_inverse=True)
            targets, negatives = places.split([len(targets), len(negatives)])
            classes = model.class_vectors(None, rows)
        hidden = self._scaled(model.with_bias(hidden))
        classes, targets = self.choose_classes(batch, self._normed(classes), targets)
        num_items = model.items.num_items
        extra = None if self.repeat_score is None else items.had.score(self.repeat_score)
        loss = catalogue_loss(objective, hidden, classes, targets, negatives, items.log_chance, num_items, extra)
        loss, total = share_of_mean(loss, items.num_counted)
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
        is_full = self.model.head == "tied" and self.config.objective.loss == "ce"
        return is_full and isinstance(self.model.items, TextVectors) and self.config.learning.item_refresh == "epoch"

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
            own_rate = config.learning.offset_lr
            rate = config.lr / 10 if own_rate is None else own_rate
            groups.append({"params": [offsets.weight], "lr": rate, "weight_decay": config.weight_decay})
            own.append(offsets.weight)
        groups += self.repeat_group(config.lr)
        if self.repeat_score is not None:
            own.append(self.repeat_score)
        groups += decay_weights(self, config.weight_decay, leave_out=own)
        optimizer = torch.optim.AdamW(groups, config.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, config.warmup_steps, config.schedule)

    # Use

    @torch.no_grad()
    def encode_items(self) -> Tensor:
        """Return the vectors of all items, (N + 1, d), row 0 zero."""
        items = self.model.items
        table = torch.zeros(items.num_items + 1, self.width, device=self.device)
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

    def user_vectors(self, inputs: Any) -> Tensor:
        """Return the user vectors, (B, d), or (B, d + 1): scores are their dot products with the item vectors."""
        return self._scaled(self.model.with_bias(self.read(inputs)))

    def encoded(self) -> Tensor:
        """Return the vectors of all items, (N + 1, d), computed once after a change of the weights."""
        if self._table is None:
            with whole_weights(self):
                self._table = self.encode_items()
        return self._table.to(self.device)

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


def make_batches(module: TextModule, dataset: Dataset, split: Split) -> BatchModule:
    """Return a run's batches of training and evaluation."""
    train = module.training_data(split.train, dataset.num_items)
    return history_batches(module, module.config, dataset, split, train)


def name_items(config: Any) -> str:
    """Return what the items are to a model, in a word: runs that differ only in the seed have the same."""
    options, n = config.items, config.items.plm_last_n_unfreeze
    name = options.plm_name.strip("/").rpartition("/")[2]
    trained = {0: "frozen", -1: "all"}.get(n, f"last{n}")
    prompt = "token" if config.prompt.is_queries else "prompt"
    also = {prompt: config.prompt.use_prompt, "offset": config.learning.item_offset}
    return "-".join([name, "lora" if options.lora_r else trained, *(part for part, there in also.items() if there)])


def train_text_model(
    module_class: type[TextModule], config: Any, dataset: Dataset, split: Split, run_name: str
) -> None:
    """Train, choose the best epoch on validation, test once, write the run folder and, if asked for, the vectors."""
    run = RunFolder(module_class.family, dataset, run_name, config.training, config.protocol)
    if not run.open(config):
        return
    learning = config.learning
    replaces = config.training.resume or config.training.overwrite  # a resumed run compares at its end
    if learning.export_name is not None and not replaces and export_path(config, dataset).exists():
        raise UserError(
            f"{export_path(config, dataset)} is there already: give another --export_name, or --overwrite to replace it"
        )
    lightning.seed_everything(config.training.seed, verbose=False)
    module = module_class(config, dataset)
    if learning.start_from is not None:
        take_weights(module, learning.start_from, dataset)
    data = make_batches(module, dataset, split)
    module, record = fit(module, data, config.training, run.folder)
    seconds = test(module, data, config.training)
    if learning.export_name is not None and is_first_process():
        export(module, dataset)
    report(run, module, record, seconds)


def take_weights(module: TextModule, run: Path, dataset: Dataset) -> None:
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
    if metrics["family"] != module.family or odd or new:
        differing = ", ".join([*odd, *new][:6]) or metrics["family"]
        raise UserError(f"--start_from {run} is of another model; they differ in {differing}: give the same flags")
    module.load_state_dict(own | state)


def export_path(config: Any, dataset: Dataset) -> Path:
    """Return the file of the vectors that a run exports."""
    return embedding_path(dataset, f"plm-{config.learning.export_name}", config.embedding_dir)


def export(module: TextModule, dataset: Dataset) -> None:
    """Write the items' vectors, (N + 1, d), for families that start from vectors."""
    config = module.config
    producer = Producer(
        f"{module.family}/finetune.py", weights_sha256(module), {"flags": str(sorted(flatten(config).items()))}
    )
    path = export_path(config, dataset)
    if needs_saving(path, dataset, producer, config.training.overwrite):
        save_embeddings(path, module.encode_items().cpu().numpy(), dataset, producer)
    log.info("item vectors `plm-%s` are in %s", config.learning.export_name, path)


def restore_text_model(
    module_class: type[TextModule],
    config: Any,
    dataset: Dataset,
    state: dict[str, Tensor],
    trained: TrainedOn | None = None,
) -> Recommender:
    """Return a trained model for use, on the catalogue that it was `trained` on or on another one."""
    module = module_class(config, dataset)
    if trained is not None and config.learning.item_offset:
        state = state | {OFFSETS: _carry_over(state[OFFSETS], trained.dataset, dataset)}
    module.load_state_dict(state)
    return Recommender(module, module.make_inputs, module.count_events)


def _carry_over(offsets: Tensor, before: Dataset, now: Dataset) -> Tensor:
    """Return (N' + 1, d) offsets of another catalogue: those of its known items, zero for new ones."""
    place = {raw_id: row for row, raw_id in enumerate(before.item_table()["raw_id"], 1)}
    rows = [0, *(place.get(raw_id, 0) for raw_id in now.item_table()["raw_id"])]
    return offsets[torch.tensor(rows)]
