"""Masked language modelling on ragged batches: whole words are hidden. Shapes: B sequences, T tokens, Q hidden ones.

About a share of a sequence's tokens, the class token excepted, is predicted, in whole words: 80 % of them are replaced
by the mask, 10 % by a random token, 10 % stay. A word is a run of pieces within one attribute's name or value: it never
crosses
from a name into its value or from one item into the next.
Source: Devlin et al. (2019), section 3.1 and appendix A.1, https://arxiv.org/abs/1810.04805.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.text.sequences import TokenBatch

MAX_HIDDEN = 512
"""Maximum number of predicted tokens per sequence."""


class Masked(NamedTuple):
    """A batch with hidden tokens, and their labels."""

    input_ids: Tensor
    """(T,) int32, the tokens that the model reads."""
    asked: Tensor
    """(Q,) int64, positions of the predicted tokens among the T, ascending."""
    labels: Tensor
    """(Q,) int64, the original tokens."""


@dataclass(frozen=True, slots=True)
class WordMasker:
    """Hides words of a tokenizer's texts."""

    continues: NDArray[np.bool_]
    """(V,) whether a piece continues the word of the piece before it."""
    mask_token_id: int
    ordinary: NDArray[np.int32]
    """Vocabulary ids that may replace a hidden token: all but the special ones."""

    @classmethod
    def of(cls, tokenizer: Any) -> "WordMasker":
        """Return the masker of a WordPiece or byte-level BPE tokenizer.

        Raises:
            UserError: If the tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise UserError(f"{tokenizer.name_or_path} has no mask token: masked language modelling needs one")
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        if any(piece.startswith("##") for piece in pieces):
            continues = [piece.startswith("##") for piece in pieces]
        else:  # byte-level BPE marks the start of a word by a blank, written as a G with a dot
            continues = [piece[:1] != "\u0120" and piece[:1].isalnum() for piece in pieces]
        ordinary = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int32), tokenizer.all_special_ids)
        return cls(np.array(continues), int(tokenizer.mask_token_id), ordinary)

    def __call__(self, batch: TokenBatch, share: float, draws: RowDraws) -> Masked:
        """Hide random words of each sequence while they fit its share, at least one.

        Args:
            batch: B sequences that begin with their class token.
            share: Of a sequence's tokens, rounded to a whole number.
            draws: Random draws of the B sequences.
        """
        ids = batch.input_ids.numpy()
        starts = self._word_starts(batch)
        word = np.cumsum(starts) - 1
        first = np.flatnonzero(starts)
        sizes = np.diff(np.append(first, len(ids)))
        offsets = batch.offsets.numpy()
        owner = np.searchsorted(offsets, first, side="right") - 1
        real = ~np.isin(first, offsets[:-1])  # a class token is a word of its own, and never hidden
        first, sizes, owner, number = first[real], sizes[real], owner[real], np.flatnonzero(real)

        order = np.lexsort((draws.uniform(np.bincount(owner, minlength=len(batch))), owner))
        total = np.cumsum(sizes[order])
        begins = np.append(True, owner[order][1:] != owner[order][:-1])[: len(order)]
        before = np.maximum.accumulate(np.where(begins, total - sizes[order], 0))
        budget = np.clip(np.rint((np.diff(offsets) - 1) * share), 1, MAX_HIDDEN)
        fits = begins | (total - before <= budget[owner[order]])

        chosen = np.zeros(int(word[-1]) + 1, dtype=bool)
        chosen[number[order[fits]]] = True
        asked = np.flatnonzero(chosen[word])
        per_row = np.bincount(np.searchsorted(offsets, asked, side="right") - 1, minlength=len(batch))
        fate = draws.uniform(per_row)
        shown = np.where(fate < 0.8, self.mask_token_id, ids[asked])
        shown = np.where(fate >= 0.9, self.ordinary[draws.integers(0, len(self.ordinary), per_row)], shown)
        masked = ids.copy()
        masked[asked] = shown
        return Masked(torch.from_numpy(masked), torch.from_numpy(asked), torch.from_numpy(ids[asked].astype(np.int64)))

    def _word_starts(self, batch: TokenBatch) -> NDArray[np.bool_]:
        """Return (T,) whether a token is the first of its word."""
        types, items = batch.token_type_ids.numpy(), batch.item_position_ids.numpy()
        starts: NDArray[np.bool_] = ~self.continues[batch.input_ids.numpy()]
        starts[1:] |= (types[1:] != types[:-1]) | (items[1:] != items[:-1])
        starts[batch.offsets.numpy()[:-1]] = True
        return starts
