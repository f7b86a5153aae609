"""Tokenisation of items and histories against a slow, literal form."""

import os
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from Recformer.config import RecformerConfig
from Recformer.library import RecformerTokenizer
from seqrec.basics.arrays import ragged_arange
from seqrec.data.dataset import load_dataset
from seqrec.text import tokens
from seqrec.text.backbones import find_backbone, load_tokenizer
from seqrec.text.sequences import TokenBatch, build_sequences, item_sequences
from seqrec.text.tokens import ItemTokens, tokenize_items

ATTRIBUTES = ("title", "brand", "category")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(find_backbone("minilm"))


def make_table(rows: Sequence[tuple[str | None, ...]]) -> pl.DataFrame:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(ATTRIBUTES)}
    schema = {"item": pl.Int32} | dict.fromkeys(ATTRIBUTES, pl.String)
    return pl.DataFrame({"item": list(range(1, len(rows) + 1))} | columns, schema=schema)


def slow_item(item: dict[str, str], tokenizer: Any, max_attr_num: int, max_attr_length: int) -> tuple[list[int], ...]:
    """One item as the paper describes it: an object of attributes, in order."""
    ids: list[int] = []
    types: list[int] = []
    for key, value in list(item.items())[:max_attr_num]:
        key_ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(key))
        value_ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
        ids += (key_ids + value_ids)[:max_attr_length]
        types += ([1] * len(key_ids) + [2] * len(value_ids))[:max_attr_length]
    return ids, types


def slow_sequence(
    history: list[int], tokens: ItemTokens, max_token_num: int, max_items: int
) -> tuple[list[int], list[int], list[int]]:
    """One history as the paper describes it: reversed, capped, then cut."""
    ids, types, positions = [tokens.cls_token_id], [0], [0]
    for place, item in enumerate(history[::-1][:max_items], start=1):
        for at in range(tokens.offsets[item], tokens.offsets[item + 1]):
            ids.append(int(tokens.tokens[at]))
            types.append(int(tokens.types[at]))
            positions.append(place)
    return ids[:max_token_num], types[:max_token_num], positions[:max_token_num]


def rows_of(batch: TokenBatch) -> list[tuple[list[int], list[int], list[int]]]:
    bounds = batch.offsets.tolist()
    fields = (batch.input_ids.tolist(), batch.token_type_ids.tolist(), batch.item_position_ids.tolist())
    return [(fields[0][a:b], fields[1][a:b], fields[2][a:b]) for a, b in pairwise(bounds)]


def hand_made() -> ItemTokens:
    """Item 1 is [11, 12], item 2 has no text, item 3 is [31, 32, 33]."""
    return ItemTokens(
        tokens=np.array([11, 12, 31, 32, 33], dtype=np.int32),
        types=np.array([1, 2, 1, 2, 2], dtype=np.int8),
        offsets=np.array([0, 0, 2, 2, 5], dtype=np.int64),
        cls_token_id=7,
    )


def test_an_item_is_the_pieces_of_its_names_and_values(tokenizer: Any) -> None:
    tokens = tokenize_items(make_table([("red guitar", "", "music"), (None, None, None)]), ATTRIBUTES, tokenizer)
    words = tokenizer.convert_ids_to_tokens(tokens.tokens.tolist())
    assert words == ["title", "red", "guitar", "category", "music"]
    assert tokens.types.tolist() == [1, 2, 2, 1, 2]
    assert tokens.offsets.tolist() == [0, 0, 5, 5]
    assert tokens.cls_token_id == tokenizer.cls_token_id


@pytest.mark.parametrize(("max_attr_num", "max_attr_length"), [(3, 32), (2, 5), (1, 1), (3, 3)])
def test_items_equal_the_slow_form(tokenizer: Any, max_attr_num: int, max_attr_length: int) -> None:
    rows = [
        ("Stainless steel hose clamp, 12-pack (3/8in)", "McGuffin & Söhne", "Industrial Scientific Fasteners"),
        ("", "Acme", "Industrial Scientific Fasteners"),
        ("x" * 60, "", "unaffable " * 40),
        ("Stainless steel hose clamp, 12-pack (3/8in)", "Acme", ""),
    ]
    tokens = tokenize_items(make_table(rows), ATTRIBUTES, tokenizer, max_attr_num, max_attr_length)
    for item, row in enumerate(rows, start=1):
        texts = {name: text for name, text in zip(ATTRIBUTES, row, strict=True) if text}
        ids, types = slow_item(texts, tokenizer, max_attr_num, max_attr_length)
        span = slice(tokens.offsets[item], tokens.offsets[item + 1])
        assert tokens.tokens[span].tolist() == ids
        assert tokens.types[span].tolist() == types


def test_items_must_be_whole(tokenizer: Any) -> None:
    table = make_table([("a", "b", "c"), ("d", "e", "f")])
    with pytest.raises(ValueError, match=r"\['colour'\].*prepare.py --attributes"):
        tokenize_items(table, ["colour"], tokenizer)
    with pytest.raises(ValueError, match=r"1\.\.N in order"):
        tokenize_items(table.reverse(), ATTRIBUTES, tokenizer)
    with pytest.raises(ValueError, match="at least 1"):
        tokenize_items(table, ATTRIBUTES, tokenizer, max_attr_length=0)


def test_a_history_is_read_from_its_end() -> None:
    items = np.array([1, 3, 2, 1], dtype=np.int32)
    batch = build_sequences(items, np.array([0, 2, 2]), np.array([2, 2, 4]), hand_made())
    assert rows_of(batch) == [
        ([7, 31, 32, 33, 11, 12], [0, 1, 2, 2, 1, 2], [0, 1, 1, 1, 2, 2]),
        ([7], [0], [0]),  # an empty history
        ([7, 11, 12], [0, 1, 2], [0, 1, 1]),  # the item without text takes a place and gives no token
    ]
    cut = build_sequences(items, np.array([0]), np.array([2]), hand_made(), max_token_num=3)
    assert rows_of(cut) == [([7, 31, 32], [0, 1, 2], [0, 1, 1])]
    alone = item_sequences(np.array([3, 1]), hand_made())
    assert rows_of(alone) == [([7, 31, 32, 33], [0, 1, 2, 2], [0, 1, 1, 1]), ([7, 11, 12], [0, 1, 2], [0, 1, 1])]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    histories=st.lists(st.lists(st.integers(1, 8), max_size=12), min_size=1, max_size=6),
    max_token_num=st.integers(1, 40),
    max_items=st.integers(1, 12),
)
def test_histories_equal_the_slow_form(
    lengths: list[int], histories: list[list[int]], max_token_num: int, max_items: int
) -> None:
    histories = [[1 + (item - 1) % len(lengths) for item in history] for history in histories]
    total = sum(lengths)
    tokens = ItemTokens(
        np.arange(100, 100 + total, dtype=np.int32),
        (1 + np.arange(total) % 2).astype(np.int8),
        np.concatenate([[0, 0], np.cumsum(lengths)]).astype(np.int64),
        cls_token_id=5,
    )
    ends = np.cumsum([len(history) for history in histories])
    starts = np.concatenate([[0], ends[:-1]])
    flat = np.array([item for history in histories for item in history], dtype=np.int32)
    batch = build_sequences(flat, starts, ends, tokens, max_token_num, max_items)
    assert rows_of(batch) == [slow_sequence(history, tokens, max_token_num, max_items) for history in histories]


def test_an_item_that_is_not_in_the_catalogue_is_refused() -> None:
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=rf"{wrong}\.\..*catalogue has 1\.\.3"):
            item_sequences(np.array([wrong]), hand_made())


def test_padding_has_its_own_values() -> None:
    batch = item_sequences(np.array([1, 2]), hand_made())
    padded = batch.padded(pad_token_id=9)
    assert {name: values.tolist() for name, values in padded.items()} == {
        "input_ids": [[7, 11, 12], [7, 9, 9]],
        "item_position_ids": [[0, 1, 1], [0, 50, 50]],
        "token_type_ids": [[0, 1, 2], [0, 3, 3]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "global_attention_mask": [[1, 0, 0], [1, 0, 0]],
    }


def test_a_batch_moves_as_a_whole() -> None:
    batch = item_sequences(np.array([1, 3]), hand_made())
    moved = batch.to("meta")
    assert moved.input_ids.is_meta and moved.item_position_ids.is_meta
    assert len(moved) == 2 and torch.equal(moved.offsets, batch.offsets)


def test_ragged_arange_by_hand() -> None:
    assert ragged_arange(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]


def test_tokens_of_a_dataset_are_made_once_in_parts(
    tiny_path: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_path, tmp_path / "tiny")
    dataset = load_dataset(tmp_path / "tiny")
    monkeypatch.setattr(tokens, "CHUNK", 7)
    whole = tokenize_items(dataset.item_table(), dataset.attributes, tokenizer, 3, 8)
    for _ in range(2):
        made = tokens.load_item_tokens(dataset, tokenizer, 3, 8)
        for field in ("tokens", "types", "offsets"):
            np.testing.assert_array_equal(getattr(made, field), getattr(whole, field))
        monkeypatch.setattr(tokens, "tokenize_items", None)  # the second time nothing is tokenised


def test_tokens_go_to_the_users_cache_where_nothing_can_be_written_beside_the_dataset(
    tiny_path: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_path, tmp_path / "disk" / "tiny")
    dataset = load_dataset(tmp_path / "disk" / "tiny")
    can_be = os.access
    read_only = tmp_path / "disk"
    monkeypatch.setattr(
        os, "access", lambda path, mode: not Path(path).is_relative_to(read_only) and can_be(path, mode)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tokens.load_item_tokens(dataset, tokenizer, 3, 8)
    whole = tokenize_items(dataset.item_table(), dataset.attributes, tokenizer, 3, 8)
    np.testing.assert_array_equal(made.tokens, whole.tokens)
    assert not (read_only / ".tokens").exists()
    assert list((tmp_path / "cache" / "seqrec" / "tokens").glob("*/tokens.npy"))


def test_other_texts_or_limits_are_other_tokens(tiny_path: Path, tokenizer: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_path, tmp_path / "tiny")
    dataset = load_dataset(tmp_path / "tiny")
    first = tokens.load_item_tokens(dataset, tokenizer, 3, 8)
    assert tokens.load_item_tokens(dataset, tokenizer, 3, 2).lengths.max() == 2 < first.lengths.max()
    table = dataset.item_table().with_columns(title=pl.lit("Cup"))
    table.write_parquet(dataset.path / "items.parquet")
    assert len(set(tokens.load_item_tokens(dataset, tokenizer, 3, 8).lengths[1:].tolist())) == 1


def test_an_items_tokens_do_not_depend_on_its_company() -> None:
    config = RecformerConfig.from_pretrained("minilm", max_attr_num=2)
    tokenizer = RecformerTokenizer.from_pretrained("minilm", config)
    first = {"brand": "Acme", "title": "Cordless drill", "colour": "red"}
    second = {"title": "Garden hose", "brand": "Rain", "size": ""}
    alone = [tokenizer([[item]]) for item in (first, second)]
    together = tokenizer([[first], [second], [{}]])
    for row, batch in enumerate(alone):
        a, b = together.offsets[row : row + 2].tolist()
        for name in ("input_ids", "token_type_ids", "item_position_ids"):
            assert torch.equal(getattr(together, name)[a:b], getattr(batch, name))
    words = tokenizer.tokenizer.convert_ids_to_tokens(alone[0].input_ids.tolist())
    assert words == ["[CLS]", "brand", "ac", "##me", "title", "cord", "##less", "drill"]
