"""Finetuning of a Recformer that reads histories item by item.

A history's vector is the recency-weighted mean of its items' vectors. So an item is read once, whichever histories it
is in, and evaluation reads none that the table has. Three things may be learned that no text tells: how often an item
is bought, whether what a user has is bought again, and how to turn a history's vector to what follows.

Shapes: T histories, D width, N items, M items that a batch reads, P pairs of a history and an item in it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from Recformer.item_batches import MOST_EVENTS, Events, ItemBatch
from Recformer.model import RecformerModel
from Recformer.module import RecformerModule
from Recformer.options import FinetuneConfig
from seqrec.nn.losses import Extra, full_softmax
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.nn.repeats import Had
from seqrec.text.encoding import encode_items
from seqrec.text.pooling import pool_items
from seqrec.text.tokens import ItemTokens

SHRINKAGE = 1e-4
"""Added to the variances that vectors are whitened by."""


class ItemwiseModule(RecformerModule):
    """The text encoder for items, a table of them, and what is learned beside the texts."""

    centre: Tensor
    whitening: Tensor

    def __init__(self, model: RecformerModel, items: ItemTokens, config: FinetuneConfig) -> None:
        super().__init__(model, items, config)
        options, D = config.itemwise, model.config.hidden_size
        self.item_bias = nn.Parameter(torch.zeros(items.num_items + 1)) if options.item_bias else None
        self.score_repeats(options.repeat_score)
        self.user_map = nn.Parameter(torch.zeros(D, D)) if options.user_map else None
        if options.whiten:
            self.register_buffer("centre", torch.zeros(D))
            self.register_buffer("whitening", torch.eye(D))
        if options.freeze_encoder:
            self.model.requires_grad_(False)
        self._own: Tensor | None = None
        self._table: Tensor | None = None

    def learn_biases_of(self, known: Tensor) -> None:
        """Learn the biases of the items that a (N+1,) bool tensor tells; the others keep theirs, 0 at first."""
        if self.item_bias is not None:
            self.item_bias.register_hook(lambda gradient: gradient * known.to(gradient.device))

    def set_table(self, table: Tensor) -> None:
        """Set the (N+1, D) item vectors of the present weights; the first set decides how vectors are whitened."""
        if self.config.itemwise.whiten and self._encoded_at is None:
            self.centre.copy_(table[1:].mean(dim=0))
            self.whitening.copy_(whitening(F.normalize(table[1:] - self.centre, dim=1)))
        self._table = None
        super().set_table(table)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a state; vectors of other weights are forgotten."""
        self._own = self._table = None
        return super().load_state_dict(state_dict, strict, assign)

    def read(self, vectors: Tensor) -> Tensor:
        """Return the (M, D) normalised form of an encoder's vectors in which they are compared."""
        if self.config.itemwise.whiten:
            vectors = F.normalize(vectors.float() - self.centre, dim=1) @ self.whitening
        return F.normalize(vectors.float(), dim=1)

    def table(self) -> Tensor:
        """Return the (N+1, D) item vectors of the table in that form."""
        if self._table is None:
            with torch.inference_mode(False), torch.no_grad():  # validation makes it for training, too
                self._table = self.read(self.item_table)
        return self._table

    def own_vectors(self) -> Tensor:
        """Return (N+1, D), all items by the present weights, which the table need not be of, in that form."""
        if self.config.itemwise.freeze_encoder or (self.refresh_items and self._encoded_at == self.global_step):
            return self.table()
        if self._own is None:
            config = self.config
            own = encode_items(self.model, self.items, config.eval_max_tokens, config.training.precision)
            self._own = self.read(own)
        return self._own

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Encode the items at the steps of --item_refresh; the weights change after this."""
        self._own = None
        super().on_train_batch_start(batch, batch_idx)

    def pool(self, vectors: Tensor, events: Events) -> Tensor:
        """Return (T, D) histories' vectors, over the temperature, and a 1 for the bias of items, from (M, D) items'."""
        return self.turn(pool_items(vectors[events.items], *events[1:], self.model.config.item_decay))

    def turn(self, pooled: Tensor) -> Tensor:
        """Return the form of (T, D) pooled histories whose products with items are scores, see `pool`."""
        users = F.normalize(pooled, dim=1) / self.config.encoder.temp
        if self.user_map is not None:
            users = users + users @ self.user_map
        return users if self.item_bias is None else F.pad(users, (0, 1), value=1.0)

    def user_vectors(self, inputs: Events) -> Tensor:
        """Return (T, D), divided by the temperature, (T, D + 1) with a bias."""
        return self.pool(self.own_vectors(), inputs)

    def item_vectors(self) -> Tensor:
        """Return (N+1, D) normalised rows of the table, (N+1, D + 1) with a bias."""
        self.encode()
        return self.with_bias(self.table())

    @property
    def most_events(self) -> int:
        """Number of the latest events that `read_rectangle` takes."""
        return MOST_EVENTS

    def event_vectors(self) -> Tensor:
        """Return what `read_rectangle` takes of each item, (N+1, D)."""
        return self.own_vectors()

    def read_rectangle(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the user vectors of (B, L, D) items' vectors, see `NextItemModule`."""
        place = lengths[:, None] - 1 - torch.arange(vectors.shape[1], device=vectors.device)
        weights = torch.where(place >= 0, self.model.config.item_decay ** place.clamp(min=0), 0.0)
        return self.turn((vectors * weights[:, :, None]).sum(dim=1))

    def with_bias(self, vectors: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the (K, D) vectors of some items, or of all, and their bias."""
        if self.item_bias is None:
            return vectors
        return torch.cat([vectors, (self.item_bias if ids is None else self.item_bias[ids])[:, None]], dim=1)

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss over a batch's targets."""
        assert isinstance(batch, ItemBatch)
        vectors = self.own_vectors() if batch.texts is None else self.read(self.model(batch.texts).pooled)
        users = self.pool(vectors, batch.inputs)
        items = batch.inputs.items if batch.ids is None else batch.ids[batch.inputs.items]
        had = distinct_pairs(batch.inputs.owner, items)
        if batch.classes is None:
            extra = None if self.repeat_score is None else had.score(self.repeat_score)
            table = self.with_bias(self.table())
            return full_softmax(users, table, batch.targets, extra=extra)
        ids, own, log_chance = batch.classes
        if self.train_items:
            assert batch.ids is not None
            classes = vectors[torch.searchsorted(batch.ids, ids)]
        else:
            classes = self.table()[ids]
        # As in a sampled softmax: a negative's score is less the logarithm of its chance, the target's own is not.
        classes = torch.cat([self.with_bias(classes, ids), -log_chance[:, None]], dim=1)
        values = log_chance[own]
        every = torch.arange(len(own), device=own.device)
        place = own
        if self.repeat_score is not None:
            at = torch.searchsorted(ids, had.items).clamp(max=len(ids) - 1)
            among = ids[at] == had.items
            rows, at = had.rows[among], at[among]
            every, place = torch.cat([every, rows]), torch.cat([place, at])
            values = torch.cat([values, self.repeat_score.expand(len(rows))])
            order = every.argsort(stable=True)
            every, place, values = every[order], place[order], values[order]
        users = F.pad(users, (0, 1), value=1.0)
        return full_softmax(users, F.pad(classes, (0, 0, 1, 0)), own + 1, extra=Extra(every, place + 1, values))

    def extra_scores(self, inputs: Events) -> Extra | None:
        """Return the score of what each history has, if one is learned."""
        if self.repeat_score is None:
            return None
        return distinct_pairs(inputs.owner, inputs.items).score(self.repeat_score.detach().clone())

    def configure_optimizers(self) -> Any:
        """Return AdamW as for the encoder; what is learned beside it has --head_lr and no decay."""
        options = self.config.itemwise
        scores = [x for x in (self.item_bias, self.repeat_score) if x is not None]
        maps = [] if self.user_map is None else [self.user_map]
        groups = decay_weights(self, self.learning.weight_decay, scores + maps)
        groups.append({"params": scores, "lr": options.head_lr, "weight_decay": 0.0})
        groups.append({"params": maps, "lr": options.head_lr / 10, "weight_decay": options.map_decay})
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, self.learning.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, self.learning.warmup_steps)


def distinct_pairs(rows: Tensor, items: Tensor) -> Had:
    """Return each pair of (E,) rows and (E,) items once, the rows ascending."""
    width = int(items.max()) + 1 if len(items) else 1
    pairs = torch.unique(rows * width + items)
    return Had(pairs // width, pairs % width)


def whitening(vectors: Tensor) -> Tensor:
    """Return the symmetric (D, D) matrix that makes (N, D) centred vectors uncorrelated, of variance 1 (ZCA).

    Source: Kessy, Lewin and Strimmer (2018), https://doi.org/10.1080/00031305.2016.1277159.
    """
    vectors = vectors.double()
    variances, directions = torch.linalg.eigh(vectors.T @ vectors / len(vectors))
    whitened: Tensor = directions * (variances.clamp(min=0) + SHRINKAGE).rsqrt() @ directions.T
    return whitened.float()
