"""The pretraining losses: contrast of histories and next items, and masked language modelling.

Shapes: B histories with one target each, M items of their windows, R items predicted from those before them, T tokens,
Q hidden tokens, D width, V vocabulary, P processes.
Source: Li et al. (2023), section 2.3, https://arxiv.org/abs/2305.13731.

A window is the last few events of a history and its target. The items of all windows are the classes. With windows of
more than the target, each item after a window's first is also predicted from the recency-weighted mean of those
before it, at no more than the cost of reading the items. Where a history is read item by item (`items` pooling), that
mean is the history's vector, and nothing else is read.

The histories and targets of a batch are read in parts of a few; with more than one part, activations are recomputed in
the backward pass. The contrast is over the whole batch and all processes, whatever the parts. This is gradient caching
(Gao et al., 2021, https://arxiv.org/abs/2101.06983), done by autograd.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from Recformer.config import ACTIVATIONS, RecformerConfig
from Recformer.model import RecformerModel
from seqrec.basics.arrays import ragged_arange
from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import full_softmax
from seqrec.text.masking import Masked, WordMasker
from seqrec.text.sequences import TokenBatch, build_sequences, item_sequences
from seqrec.text.tokens import ItemTokens

MlmPass = Literal["shared", "separate"]


class Side(NamedTuple):
    """Some sequences, plain and with hidden words."""

    plain: TokenBatch
    masked: Masked | None
    """None without masked language modelling."""


class Part(NamedTuple):
    """Histories and their windows that are read at one time."""

    histories: Side | None
    """None where they are the means of the windows' items."""
    items: Side
    """The items of the windows, one window after another, its target last."""
    windows: Tensor
    """(b,) int64 items of each window."""


class PretrainBatch(NamedTuple):
    """A batch in parts."""

    parts: list[Part]
    item_ids: Tensor
    """(M,) int64, in the order of the parts."""
    users: Tensor
    """(B,) int64 number of each history's user, likewise."""
    windows: Tensor
    """(B,) int64 items of each window, likewise."""
    num_rows: int
    """Histories of the batch, over all processes."""
    counts: bool
    """False in a process without a history of its own, whose losses count nothing."""

    @property
    def target_ids(self) -> Tensor:
        """Return (B,) int64, the item that follows each history."""
        return self.item_ids[self.windows.cumsum(0) - 1]

    @property
    def later_rows(self) -> Tensor:
        """Return (R,) int64 rows of `item_ids`: all but the first of each window."""
        is_later = torch.ones_like(self.item_ids, dtype=torch.bool)
        is_later[self.windows.cumsum(0) - self.windows] = False
        return is_later.nonzero()[:, 0]


class PretrainDataset(Dataset[PretrainBatch]):
    """One target per user and epoch, drawn from the later half of the history; the events before it are read."""

    def __init__(
        self,
        histories: Histories,
        items: ItemTokens,
        max_token_num: int,
        masker: WordMasker | None,
        mlm_probability: float,
        part_size: int,
        seed: int,
        window: int = 1,
        item_by_item: bool = False,
    ) -> None:
        """Take whole histories; with each come the `window` events that end with its target.

        With a window and `item_by_item`, the history is read no further than that.
        """
        self.window, self.reads_histories = window, not (item_by_item and window > 1)
        self.sequences = histories.select(histories.lengths >= 2)
        if not len(self.sequences):
            raise UserError("no history of the corpus has 2 items: nothing can be learned from it")
        self.items, self.max_token_num, self.part_size, self.seed = items, max_token_num, part_size, seed
        self.masker, self.mlm_probability = masker, mlm_probability

    def __getitem__(self, key: BatchKey) -> PretrainBatch:
        starts, lengths = self.sequences.starts[key.rows], self.sequences.lengths[key.rows]
        at = starts + key.draws(self.seed, key.rows, "targets").integers(np.maximum((lengths - 1) // 2, 1), lengths)
        order = np.argsort(at - starts, kind="stable")  # like lengths share a part
        windows = np.minimum(at + 1 - starts, self.window)
        parts, items = [], []
        for rows in np.split(order, range(self.part_size, len(order), self.part_size)):
            histories = None
            if self.reads_histories:
                texts = build_sequences(self.sequences.items, starts[rows], at[rows], self.items, self.max_token_num)
                histories = self._side(texts, key.draws(self.seed, key.rows[rows], "words"))
            events = ragged_arange(at[rows] + 1 - windows[rows], windows[rows])
            items.append(self.sequences.items[events].astype(np.int64))
            texts = item_sequences(items[-1], self.items, self.max_token_num)
            parts.append(
                Part(
                    histories,
                    # Each event has a number of its own, for the draws of its words.
                    self._side(texts, key.draws(self.seed, events, "words of items")),
                    torch.from_numpy(windows[rows]),
                )
            )
        return PretrainBatch(
            parts,
            torch.from_numpy(np.concatenate(items)),
            torch.from_numpy(self.sequences.users[key.rows[order]]),
            torch.from_numpy(windows[order]),
            len(key.all_rows),
            key.counts,
        )

    def _side(self, plain: TokenBatch, draws: RowDraws) -> Side:
        if self.masker is None:
            return Side(plain, None)
        return Side(plain, self.masker(plain, self.mlm_probability, draws))


class LanguageModelHead(nn.Module):
    """Head that predicts masked tokens, with the word embeddings or a separate table; named like RoBERTa's."""

    def __init__(self, config: RecformerConfig, words: Tensor | None = None) -> None:
        """Take the (V, D) word embeddings that a separate table starts from; None for no separate table."""
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = ACTIVATIONS[config.hidden_act]
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)
        own = None if words is None else nn.Embedding.from_pretrained(words.detach().clone(), freeze=False)
        self.decoder: nn.Embedding | None = own

    def forward(self, x: Tensor, words: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of (Q,) labels under (Q, D) hidden states and (V, D) word embeddings.

        Token 0 is never a class: it is the padding or the class token, which are never hidden.
        """
        x = self.layer_norm(self.activation(self.dense(x)))
        words = words if self.decoder is None else self.decoder.weight
        return full_softmax(F.pad(x, (0, 1), value=1.0), torch.cat([words, self.bias[:, None]], dim=1), labels)


class RecformerForPretraining(nn.Module):
    """The encoder and a language-model head."""

    def __init__(self, longformer: RecformerModel, mlm_pass: MlmPass = "shared", untie_decoder: bool = False) -> None:
        """Take an encoder.

        Args:
            longformer: The encoder.
            mlm_pass: `separate` reads every text twice, plain for the contrast and masked for its words, as the
                paper does; `shared` reads it once, masked, for both.
            untie_decoder: Predict hidden words by a separate table, not by the word embeddings.
        """
        super().__init__()
        self.longformer, self.shared = longformer, mlm_pass == "shared"
        self.lm_head = LanguageModelHead(
            longformer.config, longformer.word_embeddings.weight if untie_decoder else None
        )

    def read(self, side: Side) -> tuple[Tensor, Tensor]:
        """Return one vector per sequence, (B, D), and the sum of the losses over its hidden words, ()."""
        masked = side.masked
        if masked is None:
            plain: Tensor = self.longformer(side.plain).pooled
            return plain, plain.new_zeros(())
        read = self.longformer(replace(side.plain, input_ids=masked.input_ids), all_tokens=True)
        pooled = read.pooled if self.shared else self.longformer(side.plain).pooled
        words = self.longformer.embeddings.word_embeddings.weight
        return pooled, self.lm_head(read.tokens[masked.asked], words, masked.labels) * len(masked.labels)

    def forward(self, parts: list[Part]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the vectors of histories, items and means of items, and the hidden words' losses of the first two.

        These are (B, D), (M, D), (R, D), normalised, and two sums, ().
        """
        if len(parts) == 1 or not torch.is_grad_enabled():
            read = [self._read_part(part) for part in parts]
        else:
            read = [checkpoint(self._read_part, part, use_reentrant=False) for part in parts]
        histories, items, means, history_losses, item_losses = zip(*read, strict=True)
        return torch.cat(histories), torch.cat(items), torch.cat(means), sum(history_losses), sum(item_losses)

    def _read_part(self, part: Part) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        read = None if part.histories is None else self.read(part.histories)
        items, item_loss = self.read(part.items)
        items = F.normalize(items.float(), dim=1)
        means = recent_means(items, part.windows, self.longformer.config.item_decay)
        if read is None:
            return means[(part.windows - 1).cumsum(0) - 1], items, means, item_loss.new_zeros(()), item_loss
        histories, history_loss = read
        return F.normalize(histories.float(), dim=1), items, means, history_loss, item_loss


def recent_means(items: Tensor, windows: Tensor, decay: float) -> Tensor:
    """Return (R, D), normalised: for each item but a window's first, the mean of those before it in the window.

    Args:
        items: (M, D), one window after another.
        windows: (B,) int64 items of each.
        decay: What an item weighs beside the next.
    """
    window = torch.arange(len(windows), device=items.device).repeat_interleave(windows)
    gap = torch.arange(len(items), device=items.device)
    gap = gap[:, None] - gap
    weights = torch.where((window[:, None] == window) & (gap > 0), decay ** gap.clamp(min=1), 0.0)
    weights = weights[weights.any(dim=1)]
    with torch.autocast(items.device.type, enabled=False):
        return F.normalize(weights @ items, dim=1)


class Classes(NamedTuple):
    """The items of all windows of all processes, which a contrast tells targets from."""

    vectors: Tensor
    """(M, D), normalised."""
    ids: Tensor
    """(M,) int64 items, 0 where a row is filling."""
    users: Tensor
    """(M,) int64."""


def contrast(queries: Tensor, classes: Classes, own: Tensor, temp: float) -> tuple[Tensor, Tensor]:
    """Return each query's cross-entropy over the classes, and whether its own ranks first.

    Left out are the other classes with the item of a query's own, and the other items of the same user.

    Args:
        queries: (R, D), normalised.
        classes: M of them.
        own: (R,) int64 class that each query should find.
        temp: Cosine similarities are divided by this.

    Returns:
        (R,) losses and (R,) bool.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries @ classes.vectors.T / temp
    ids, users = classes.ids, classes.users
    left_out = (ids == ids[own, None]) | (users == users[own, None]) | (ids == 0)
    left_out[torch.arange(len(own), device=own.device), own] = False
    scores = scores.masked_fill(left_out, -torch.inf)
    return F.cross_entropy(scores, own, reduction="none"), scores.argmax(1) == own
