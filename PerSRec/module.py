"""What PerSRec reads of a history and learns from a batch, as Lightning modules: over ids, and over texts."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from PerSRec.data import HistoryDataset, Inputs, TextBatch, TrainBatch, closing_events, make_inputs, make_reader
from PerSRec.encoder import HistoryEncoder
from PerSRec.memory import CompressedHistories, MixedInputs, open_memory
from PerSRec.model import HistoryModel, build_encoder
from PerSRec.options import Config
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.splits import Split
from seqrec.items.language_model import ReadTexts, build_items
from seqrec.items.vectors import ItemVectors
from seqrec.nn.item_table import GivenVectors
from seqrec.nn.repeats import had_by_history
from seqrec.nn.segments import Window, rectangle_rows
from seqrec.text.encoding import weights_sha256
from seqrec.training import id_model, text_module
from seqrec.training.batches import BatchModule, history_batches
from seqrec.training.item_batches import ItemReader
from seqrec.training.module import NextItemModule, Recommender, TrainedOn

log = logging.getLogger(__name__)


class HistoryModule(NextItemModule):
    """Every event of a training sequence predicts the next; in use, the newest one does."""

    family = "PerSRec"
    config: Any
    model: Any
    memory: CompressedHistories | None = None
    """Where old events are read from, if they are compressed."""
    only_recent: bool = False
    """Whether recent events are read alone, without old ones and tokens."""

    def __init__(self, config: Config, *given: Any) -> None:
        """Build the model from the flags, and from what the base of items by id, or by text, is given beside them."""
        super().__init__(config, *given)  # type: ignore[arg-type]
        temp = config.objective.temp
        is_learned = config.learn_temp and temp is not None
        self.log_temp = nn.Parameter(torch.tensor(temp).log()) if is_learned else None

    @property
    def encoder(self) -> HistoryEncoder:
        """What reads histories."""
        encoder: HistoryEncoder = self.model.encoder
        return encoder

    def embed(self, items: Tensor) -> Tensor:
        """Return the (T, D) vectors of items outside training."""
        raise NotImplementedError

    def digest(self) -> str:
        """Return a hash of all that turns old events into what a memory keeps."""
        raise NotImplementedError

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs | MixedInputs:
        """Return the latest events of some histories, or the recent ones where the old ones are compressed."""
        window: Window = self.config.history.window
        read: Inputs | MixedInputs
        if self.memory is not None:
            read = self.memory.make_inputs(histories, rows)
        else:
            read = make_inputs(histories, rows, window, self.encoder.timed, self.only_recent)
        if self.repeat_score is None:
            return read
        return read._replace(
            had=had_by_history(histories, rows, window.num_recent if self.only_recent else window.length)
        )

    def use_memory(self, folder: Path, dataset: Dataset) -> None:
        """Read the old events of a dataset's users from what a folder keeps of them."""
        self.memory = open_memory(self.encoder, self.digest(), dataset, folder)
        log.info("old events of %s of %s users are compressed", *(f"{n:,}" for n in self.memory.num_users))

    def count_events(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) number of events read of each history."""
        window: Window = self.config.history.window
        is_whole = self.memory is None and not self.only_recent
        return np.minimum(histories.lengths, window.length if is_whole else window.num_recent)

    def read(self, inputs: Inputs | MixedInputs) -> Tensor:
        """Return the newest event's output of each history, (B, D)."""
        if isinstance(inputs, Inputs):
            hidden: Tensor = self.encoder(self.embed(inputs.items), inputs.rows, inputs.seconds, inputs.newest)
            return hidden[inputs.order]
        found = []
        if (recalled := inputs.recalled) is not None:
            vectors = self.embed(recalled.items)
            found.append(self.encoder(vectors, recalled.rows, recalled.seconds, recalled.newest, recalled.kept))
        if inputs.whole is not None:
            found.append(self.read(inputs.whole))
        return torch.cat(found)[inputs.order]

    @property
    def most_events(self) -> int:
        """Most recent events that the model reads."""
        length: int = self.config.history.maxlen
        return length

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of histories in a rectangle, see `NextItemModule.read_rectangle`."""
        if self.encoder.timed or self.encoder.tokens is not None:
            return super().read_rectangle(vectors, lengths)
        B, L, _ = vectors.shape
        hidden = self.encoder(vectors.flatten(0, 1), rectangle_rows(lengths, L, self.config.history.window))
        return self._scaled(hidden[torch.arange(B) * L + lengths - 1])

    def choose_classes(self, batch: Any, classes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes and targets; under --compat published, the last event before tokens predicts the first one."""
        tokens = self.encoder.tokens
        if self.config.model.compat == "fixed" or tokens is None or batch.asked is not None:
            return classes, targets
        events, numbers = closing_events(batch.rows, self.encoder.window)
        targets = targets.index_copy(0, events, len(classes) + numbers)
        return torch.cat([classes, F.normalize(tokens, dim=1).to(classes.dtype)]), targets

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Normalise and divide by the temperature, if there is one; one that is learned is at least 0.01."""
        if self.log_temp is not None:
            return F.normalize(hidden, dim=1) / self.log_temp.exp().clamp(min=0.01)
        scaled: Tensor = super()._scaled(hidden)  # type: ignore[misc]
        return scaled


def _num_absent(config: Config) -> int:
    """Return how many items the catalogue has that never occur."""
    return int(config.model.compat == "published")


class PerSRecModule(HistoryModule, id_model.IdModule):
    """Items by id."""

    config: Config

    @classmethod
    def training_data(cls, config: Config, train: Histories, num_items: int) -> HistoryDataset:
        """Return the training histories in batches of inputs, targets and negatives."""
        return HistoryDataset(make_reader(config, train, num_items + _num_absent(config)), config)

    def build_model(self, num_items: int, given: GivenVectors | None) -> HistoryModel:
        """Return the model for a catalogue."""
        config = self.config
        encoder = build_encoder(config.model, config.history.window)
        return HistoryModel(num_items + _num_absent(config), encoder, given)

    @property
    def maxlen(self) -> int:
        """Most recent events that the model reads."""
        return self.config.history.maxlen

    def item_vectors(self) -> Tensor:
        """Return the item vectors for scoring, (N+1, D)."""
        vectors = super().item_vectors()
        return vectors[: len(vectors) - _num_absent(self.config)]

    def event_vectors(self) -> Tensor:
        """Return the item table, (N+1, D)."""
        vectors = super().event_vectors()
        return vectors[: len(vectors) - _num_absent(self.config)]

    def candidates(self) -> Tensor:
        """Return the vectors of what evaluation ranks, with --compat published also that of an item without events."""
        return super().item_vectors()

    def embed(self, items: Tensor) -> Tensor:
        """Return the (T, D) vectors of items."""
        vectors: Tensor = self.model.item_embedding(items)
        return vectors

    def digest(self) -> str:
        """Return a hash of the weights."""
        return weights_sha256(self)

    def predict(self, batch: TrainBatch, items: Tensor, table: Tensor) -> Tensor:
        """Return the output of every event that is asked, (T, D)."""
        hidden: Tensor = self.encoder(F.embedding(items, table), batch.rows, batch.seconds)
        return hidden if batch.asked is None else hidden[batch.asked]


class HLLMModule(HistoryModule, text_module.TextModule):
    """Items by what a language model makes of their texts."""

    config: Config

    def build_items(self, dataset: Dataset) -> tuple[ItemVectors, ReadTexts | None]:
        """Return what makes the items' vectors, and what reads the texts for it, if it reads any."""
        config, prompt = self.config, self.config.prompt
        options = replace(config.items, pooling_method="last") if prompt.use_prompt else config.items
        return build_items(options, prompt, config.cache, dataset, self.width)

    def build_encoder(self) -> HistoryEncoder:
        """Return what reads histories."""
        return build_encoder(self.config.model, self.config.history.window)

    def training_data(self, train: Histories, num_items: int) -> HistoryDataset:
        """Return the training histories in batches of inputs, items, targets and negatives."""
        config = self.config
        read_items = ItemReader(train, num_items, config.objective, True, self.read_texts, not self.takes_pooled)
        return HistoryDataset(make_reader(config, train, num_items), config, read_items)

    def embed(self, items: Tensor) -> Tensor:
        """Return the (T, D) vectors of items, all of which are encoded the first time."""
        return F.embedding(items, self.encoded())

    def event_vectors(self) -> Tensor:
        """Return the vectors of all items, (N+1, D)."""
        return self.encoded()

    def digest(self) -> str:
        """Return a hash of the weights and of all items' vectors."""
        table = self.encoded().cpu().numpy()
        return hashlib.sha256(weights_sha256(self).encode() + np.ascontiguousarray(table).data).hexdigest()

    def predict(self, batch: TextBatch, vectors: Tensor) -> Tensor:
        """Return the output of every event that is asked, (T, D)."""
        hidden: Tensor = self.encoder(vectors, batch.rows, batch.seconds)
        return hidden if batch.asked is None else hidden[batch.asked]


def train(config: Config) -> None:
    """Run one PerSRec."""
    if config.input_type == "id":
        id_model.train_id_model(PerSRecModule, config)
        return
    dataset = open_dataset(config.dataset, config.data_path)
    name = f"{config.model.model}-{text_module.name_items(config)}"
    text_module.train_text_model(HLLMModule, config, dataset, config.protocol.hold_out(dataset), name)


def batches_of(module: PerSRecModule | HLLMModule, dataset: Dataset, split: Split) -> BatchModule:
    """Return a run's batches of training and evaluation."""
    if isinstance(module, HLLMModule):
        return text_module.make_batches(module, dataset, split)
    train = module.training_data(module.config, split.train, dataset.num_items)
    return history_batches(module, module.config, dataset, split, train)


def restore_trained(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained model for use, see `restore_id_model` and `restore_text_model`."""
    if config.input_type == "text":
        return text_module.restore_text_model(HLLMModule, config, dataset, state, trained)
    return id_model.restore_id_model(PerSRecModule, config, dataset, state, trained)
