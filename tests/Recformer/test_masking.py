"""Which tokens are hidden: whole words, as many as asked for, shown as the paper shows them."""

from typing import Any

import numpy as np
import pytest
import torch

from seqrec.basics.draws import RowDraws
from seqrec.data.dataset import Dataset
from seqrec.text.masking import WordMasker
from seqrec.text.sequences import TokenBatch, build_sequences
from seqrec.text.tokens import ItemTokens


@pytest.fixture(scope="module")
def histories(tiny: Dataset, items: ItemTokens) -> TokenBatch:
    return build_sequences(tiny.items, tiny.offsets[:-1], tiny.offsets[1:], items)


def draws_of(batch: TokenBatch, seed: int) -> RowDraws:
    return RowDraws(seed, 0, np.arange(len(batch)), "words")


def words_of(batch: TokenBatch, row: int, tokenizer: Any) -> list[list[int]]:
    """Return the places of each word of a sequence, by the definition, one token after another."""
    start, end = int(batch.offsets[row]), int(batch.offsets[row + 1])
    words: list[list[int]] = []
    for t in range(start + 1, end):
        same_text = t > start + 1 and all(
            field[t] == field[t - 1] for field in (batch.token_type_ids, batch.item_position_ids)
        )
        if same_text and tokenizer.convert_ids_to_tokens(int(batch.input_ids[t])).startswith("##"):
            words[-1].append(t)
        else:
            words.append([t])
    return words


def test_whole_words_are_hidden_about_as_many_as_asked_for(histories: TokenBatch, tokenizer: Any) -> None:
    masked = WordMasker.of(tokenizer)(histories, 0.3, draws_of(histories, 0))
    asked = set(masked.asked.tolist())
    assert masked.asked.tolist() == sorted(asked)
    assert torch.equal(masked.labels, histories.input_ids[masked.asked].long())
    partial = 0
    for row in range(len(histories)):
        words = words_of(histories, row, tokenizer)
        hidden = [word for word in words if word[0] in asked]
        assert all(set(word) <= asked for word in hidden)
        assert not any(set(word) & asked for word in words if word[0] not in asked)
        budget = round((int(histories.lengths[row]) - 1) * 0.3)
        size = sum(map(len, hidden))
        assert size <= budget or len(hidden) == 1
        partial += budget - size
    assert not asked & set(histories.offsets[:-1].tolist())
    assert partial < len(histories)  # a word that did not fit in costs its sequence less than a token on average


def test_hidden_tokens_are_mostly_masked_and_the_rest_left_alone(histories: TokenBatch, tokenizer: Any) -> None:
    masker, counts = WordMasker.of(tokenizer), np.zeros(3)
    for seed in range(40):
        masked = masker(histories, 0.3, draws_of(histories, seed))
        shown = masked.input_ids[masked.asked]
        kept, mask = shown == masked.labels, shown == tokenizer.mask_token_id
        counts += [mask.sum(), kept.sum(), (~kept & ~mask).sum()]
        untouched = torch.ones(len(histories.input_ids), dtype=torch.bool)
        untouched[masked.asked] = False
        assert torch.equal(masked.input_ids[untouched], histories.input_ids[untouched])
        assert not set(shown[~kept & ~mask].tolist()) & set(tokenizer.all_special_ids)
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.02)


def test_words_of_byte_level_bpe_begin_at_blanks_and_punctuation() -> None:
    class Tokenizer:
        mask_token_id, all_special_ids, name_or_path = 5, [5], "bpe"

        def __len__(self) -> int:
            return 6

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["red", "\u0120red", "dish", "-", "1", "<mask>"]

    assert WordMasker.of(Tokenizer()).continues.tolist() == [True, False, True, False, True, False]
