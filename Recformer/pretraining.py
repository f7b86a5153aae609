"""The pretraining losses: contrast of histories and next items, and masked language modelling.

Shapes: B histories with one target each, T tokens, Q hidden tokens, D width, V vocabulary, P processes.
Source: Li et al. (2023), section 2.3, https://arxiv.org/abs/2305.13731.

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
    """Histories and their targets that are read at one time."""

    histories: Side
    targets: Side


class PretrainBatch(NamedTuple):
    """A batch in parts."""

    parts: list[Part]
    target_ids: Tensor
    """(B,) int64, in the order of the parts."""
    num_rows: int
    """Histories of the batch, over all processes."""
    counts: bool
    """False in a process without a history of its own, whose losses count nothing."""


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
    ) -> None:
        self.sequences = histories.select(histories.lengths >= 2)
        if not len(self.sequences):
            raise UserError("no history of the corpus has 2 items: nothing can be learned from it")
        self.items, self.max_token_num, self.part_size, self.seed = items, max_token_num, part_size, seed
        self.masker, self.mlm_probability = masker, mlm_probability

    def __getitem__(self, key: BatchKey) -> PretrainBatch:
        starts, lengths = self.sequences.starts[key.rows], self.sequences.lengths[key.rows]
        at = starts + key.draws(self.seed, key.rows, "targets").integers(np.maximum((lengths - 1) // 2, 1), lengths)
        targets = self.sequences.items[at].astype(np.int64)
        order = np.argsort(at - starts, kind="stable")  # like lengths share a part
        parts = []
        for rows in np.split(order, range(self.part_size, len(order), self.part_size)):
            draws = key.draws(self.seed, key.rows[rows], "words")
            histories = build_sequences(self.sequences.items, starts[rows], at[rows], self.items, self.max_token_num)
            parts.append(
                Part(
                    self._side(histories, draws),
                    self._side(item_sequences(targets[rows], self.items, self.max_token_num), draws),
                )
            )
        return PretrainBatch(parts, torch.from_numpy(targets[order]), len(key.all_rows), key.counts)

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

    def forward(self, parts: list[Part]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (B, D) of the histories and of the targets, and both sums of the language model's losses."""
        if len(parts) == 1 or not torch.is_grad_enabled():
            read = [self._read_part(part) for part in parts]
        else:
            read = [checkpoint(self._read_part, part, use_reentrant=False) for part in parts]
        histories, targets, history_losses, target_losses = zip(*read, strict=True)
        return torch.cat(histories), torch.cat(targets), sum(history_losses), sum(target_losses)

    def _read_part(self, part: Part) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        histories, history_loss = self.read(part.histories)
        targets, target_loss = self.read(part.targets)
        return histories, targets, history_loss, target_loss


def contrast(
    histories: Tensor, targets: Tensor, own_ids: Tensor, all_ids: Tensor, first: int, temp: float
) -> tuple[Tensor, Tensor]:
    """Return each history's cross-entropy over all targets, and whether its own ranks first.

    Other targets with the same item as a history's own are left out.

    Args:
        histories: (B, D) of this process.
        targets: (M, D) of all processes.
        own_ids: (B,) int64 items that follow the histories.
        all_ids: (M,) int64 items of the targets, 0 where a row is filling.
        first: Row of `targets` that belongs to the first history.
        temp: Cosine similarities are divided by this.

    Returns:
        (B,) losses and (B,) bool.
    """
    scores = F.normalize(histories.float(), dim=1) @ F.normalize(targets.float(), dim=1).T / temp
    own = torch.arange(first, first + len(histories), device=scores.device)
    left_out = (all_ids == own_ids[:, None]) | (all_ids == 0)
    left_out[torch.arange(len(own)), own] = False
    scores = scores.masked_fill(left_out, -torch.inf)
    return F.cross_entropy(scores, own, reduction="none"), scores.argmax(1) == own
