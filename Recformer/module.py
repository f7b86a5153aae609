"""Finetuning of a Recformer whose histories are texts. Shapes: B histories, D width, N items."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.data import TrainBatch
from Recformer.model import RecformerModel
from Recformer.options import FinetuneConfig
from seqrec.nn.losses import full_softmax, sampled_softmax
from seqrec.text.encoding import encode_items
from seqrec.text.tokens import ItemTokens
from seqrec.training.encoder_module import EncoderModule
from seqrec.training.module import share_of_mean


class RecformerModule(EncoderModule):
    """The text encoder for histories over a table of encoded items, with loss and optimiser."""

    item_table: Tensor
    model: RecformerModel

    def __init__(self, model: RecformerModel, items: ItemTokens, config: FinetuneConfig) -> None:
        super().__init__(model, model, config.learning, config.protocol.metric_ks)
        self.items, self.config = items, config
        self.refresh_items = True
        self.train_items = False
        self._encoded_at: int | None = None
        self.register_buffer("item_table", torch.zeros(items.num_items + 1, model.config.hidden_size))
        model.freeze_unread()

    def encode(self) -> None:
        """Encode the items with the present weights, unless the table is up to date or frozen."""
        if self.refresh_items and self._encoded_at != self.global_step:
            tokens, precision = self.config.eval_max_tokens, self.config.training.precision
            share = (0, 1) if self._trainer is None else (self.global_rank, self.trainer.world_size)
            self.set_table(encode_items(self.model, self.items, tokens, precision, share))

    def set_table(self, table: Tensor) -> None:
        """Set the (N+1, D) item vectors of the present weights."""
        self.item_table.copy_(table)
        self._encoded_at = self.global_step

    def user_vectors(self, inputs: Any) -> Tensor:
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

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Encode the items at the steps of --item_refresh."""
        steps = self.config.refresh_steps
        if steps is not None and self.global_step % steps == 0:
            self.encode()

    def training_step(self, batch: Any) -> Tensor:
        """Return the mean loss, or of several processes this one's share."""
        loss, total = share_of_mean(self.loss(batch), batch.num_counted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=total)
        return loss

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss over a batch's targets.

        The gradient goes through the histories, and through the batch's items if asked for.
        """
        assert isinstance(batch, TrainBatch)
        users = self.user_vectors(batch.inputs)
        if self.train_items and batch.classes is not None:
            # The table's items are not classes here: they are stale, so the model could tell them apart by age.
            classes = F.normalize(self.model(batch.classes.texts).pooled.float(), dim=1)
            everything = torch.arange(len(classes), device=classes.device)
            return sampled_softmax(users, classes, batch.classes.own, everything, batch.classes.log_chance)
        items, log_chance = batch.negatives
        if not len(items):
            return full_softmax(users, F.normalize(self.item_table, dim=1), batch.targets)
        ids, place = torch.cat([batch.targets, items]).unique(return_inverse=True)
        targets, negatives = place.split([len(batch.targets), len(items)])
        return sampled_softmax(users, F.normalize(self.item_table[ids], dim=1), targets, negatives, log_chance)
