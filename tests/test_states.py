"""States of a frozen model's blocks: made once, in parts, by several processes, block by block."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.nn.ragged import plan_batch
from seqrec.text import states as states_module
from seqrec.text.backbones import read_tokenizer
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.options import TextPooling
from seqrec.text.pooling import pool_texts
from seqrec.text.reading import TextReading
from seqrec.text.states import FrozenPart, ItemStates, StatesOptions, StatesPrecision
from seqrec.text.texts import TextTokens, load_texts
from tests.tiny_models import BLOCKS, write_model

WHOLE = StatesOptions(block_by_block=False)


@pytest.fixture(scope="module", params=["bert", "opt", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), "opt")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "PART_BYTES", 32 * 4 * 40)  # 40 tokens


def tokens_of(folder: Path, texts: Dataset) -> TextTokens:
    return load_texts(texts, read_tokenizer(folder), 9)


def part_of(folder: Path, cache: Path, tokens: TextTokens, blocks: int, options: StatesOptions = WHOLE) -> FrozenPart:
    return FrozenPart(cache, Architecture.read(folder), tokens, blocks, options)


@torch.no_grad()
def by_hand(folder: Path, tokens: TextTokens, blocks: int) -> NDArray[Any]:
    """Return the states of all tokens, item by item."""
    architecture = Architecture.read(folder)
    model = Blocks(architecture, 0, blocks).load(architecture.weight_files())
    rows = []
    for item in range(1, tokens.num_items + 1):
        texts = tokens.read(np.array([item]))
        plan = plan_batch(texts.offsets.diff(), torch.device("cpu"))
        rows.append(model(texts.values[plan.token_order], TextReading(plan)))
    return torch.cat(rows).numpy()


def test_cached_states_are_those_of_the_running_model(model: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(model, texts)
    assert tokens.lengths[1:].min() >= 3 and len(part_of(model, tmp_path, tokens, 1).bounds) > 5
    for blocks in range(BLOCKS + 1):
        found = part_of(model, tmp_path, tokens, blocks).states()
        np.testing.assert_allclose(found.states, by_hand(model, tokens, blocks), rtol=0, atol=3e-6)
    some = np.array([40, 3, 17])
    read, expected = found.read(some), tokens.read(some)
    assert torch.equal(read.offsets, expected.offsets)
    rows = np.concatenate([np.arange(tokens.offsets[item], tokens.offsets[item + 1]) for item in some])
    np.testing.assert_array_equal(read.values.numpy(), found.states[rows])


def test_pooled_vectors_are_the_mean_the_last_and_the_first_state(opt: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(opt, texts)
    states = np.split(by_hand(opt, tokens, BLOCKS), tokens.offsets[2:-1])
    expected: dict[TextPooling, NDArray[Any]] = {
        "mean": np.stack([s.mean(0) for s in states]),
        "last": np.stack([s[-1] for s in states]),
        "cls": np.stack([s[0] for s in states]),
    }
    expected["mean_last"] = np.concatenate([expected["mean"], expected["last"]], axis=1)
    for pooling, vectors in expected.items():
        found = part_of(opt, tmp_path, tokens, BLOCKS).vectors(pooling)
        assert not found[0].any()
        np.testing.assert_allclose(found[1:], vectors, rtol=0, atol=3e-6)


def test_a_bert_s_pooler_reads_the_first_state(texts: Dataset, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = write_model(tmp_path / "bert", "bert")
    tokens = tokens_of(folder, texts)
    part_of(folder, tmp_path / "cache", tokens, BLOCKS).states()  # from which alone it could not be had
    found = part_of(folder, tmp_path / "cache", tokens, BLOCKS).vectors("pooler")
    seventh = tokens.read(np.array([7]))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(input_ids=seventh.values[None]).pooler_output[0]
    np.testing.assert_allclose(found[7], expected, rtol=0, atol=3e-6)


def test_block_by_block_gives_the_same_and_leaves_nothing_behind(model: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(model, texts)
    at_once = part_of(model, tmp_path / "a", tokens, BLOCKS).states().states
    slowly = replace(WHOLE, block_by_block=True)
    one_by_one = part_of(model, tmp_path / "b", tokens, BLOCKS, slowly)
    assert np.array_equal(one_by_one.states().states, at_once)
    assert len([path for path in (tmp_path / "b").iterdir() if path.is_dir()]) == 1
    pooled = part_of(model, tmp_path / "c", tokens, BLOCKS, slowly).vectors("mean")
    assert np.array_equal(pooled, part_of(model, tmp_path / "a", tokens, BLOCKS).vectors("mean"))


def test_a_lower_cache_is_where_a_higher_one_begins(
    opt: Path, texts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(opt, texts)
    expected = part_of(opt, tmp_path / "other", tokens, BLOCKS).states().states
    tmp_path = tmp_path / "own"
    part_of(opt, tmp_path, tokens, 1).states()
    built = []
    real = Blocks.__init__

    def watched(self: Blocks, architecture: Architecture, first: int, last: int, *others: Any, **more: Any) -> None:
        built.append((first, last))
        real(self, architecture, first, last, *others, **more)

    monkeypatch.setattr(Blocks, "__init__", watched)
    found = part_of(opt, tmp_path, tokens, BLOCKS)
    assert np.array_equal(found.states().states, expected)
    assert built == [(1, BLOCKS)]
    found.states()
    assert len(built) == 1  # the second time nothing runs
    vectors = found.vectors("mean")
    assert len(built) == 1 and vectors.shape == (41, 32)  # pooled from the states that are there
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3  # the lower one stays


def test_an_interrupted_share_is_continued(
    opt: Path, texts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(opt, texts)
    expected = part_of(opt, tmp_path / "other", tokens, 2).states().states
    tmp_path = tmp_path / "own"
    real, calls = FrozenPart._run_part, []

    def full_disk(self: FrozenPart, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *arguments)

    monkeypatch.setattr(FrozenPart, "_run_part", full_disk)
    with pytest.raises((OSError, UserError), match="No space left"):
        part_of(opt, tmp_path, tokens, 2).states()
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")]
    part = part_of(opt, tmp_path, tokens, 2)
    assert np.array_equal(part.states().states, expected)
    assert len(calls) == 1 + len(part.bounds) - 1  # the three that were whole are not made again


def test_a_full_disk_while_parts_are_joined(
    opt: Path, texts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(opt, texts)
    expected = part_of(opt, tmp_path / "other", tokens, 2).states().states
    real = np.lib.format.write_array_header_1_0

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises((OSError, UserError), match="No space left"):
        part_of(opt, tmp_path, tokens, 2).states()
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", real)
    assert np.array_equal(part_of(opt, tmp_path, tokens, 2).states().states, expected)


def test_two_processes_make_what_one_does(opt: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(opt, texts)
    shared = part_of(opt, tmp_path / "two", tokens, BLOCKS, replace(WHOLE, devices=("cpu", "cpu"), block_by_block=True))
    expected = part_of(opt, tmp_path / "one", tokens, BLOCKS)
    assert np.array_equal(shared.vectors("last"), expected.vectors("last"))


def test_other_texts_weights_blocks_or_numbers_have_a_cache_of_their_own(
    opt: Path, texts: Dataset, tmp_path: Path
) -> None:
    tokens = tokens_of(opt, texts)
    first = part_of(opt, tmp_path, tokens, 2).states().states.copy()
    other = write_model(tmp_path / "model", "opt", seed=1)
    changed = part_of(other, tmp_path, tokens, 2).states().states
    assert not np.allclose(first, changed)
    shorter = load_texts(texts, read_tokenizer(opt), 5)
    assert len(part_of(opt, tmp_path, shorter, 2).states().states) == len(shorter.tokens)
    assert np.array_equal(part_of(opt, tmp_path, tokens, 2).states().states, first)
    # The weights of a file that is replaced under its name.
    state = safetensors.torch.load_file(other / "model.safetensors")
    safetensors.torch.save_file(
        {name: tensor + 0.01 for name, tensor in state.items()}, other / "model.safetensors", metadata={"format": "pt"}
    )
    assert not np.allclose(part_of(other, tmp_path, tokens, 2).states().states, changed)


def test_half_precision_is_kept_and_close(model: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(model, texts)
    exact = by_hand(model, tokens, 2)
    halves: list[tuple[StatesPrecision, type, float]] = [("bf16", np.uint16, 0.15), ("16", np.float16, 0.02)]
    for precision, kind, tolerance in halves:
        options = replace(WHOLE, precision=precision)
        found = part_of(model, tmp_path, tokens, 2, options).states()
        assert found.states.dtype == kind
        values = found.read(np.arange(1, tokens.num_items + 1)).values.numpy()
        assert values.dtype == np.float32
        assert np.abs(values - exact).max() < tolerance * np.abs(exact).max()
        assert np.abs(values - exact).max() > 0


def test_a_cache_that_lost_rows_is_refused(opt: Path, texts: Dataset, tmp_path: Path) -> None:
    tokens = tokens_of(opt, texts)
    part = part_of(opt, tmp_path, tokens, 2)
    file = part._cache(2).folder / "states.npy"
    part.states()
    whole = np.load(file)
    np.save(file, whole[:-1])
    with pytest.raises(UserError, match=r"is damaged: delete it"):
        part.states()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"is damaged \(.*\): delete it"):
        part.states()
    with pytest.raises(UserError, match=r"is damaged \(.*\): delete it"):  # from where the next would begin
        part_of(opt, tmp_path, tokens, BLOCKS).vectors("mean")
    shutil.rmtree(file.parent)
    vectors = part_of(opt, tmp_path, tokens, BLOCKS)
    vectors.vectors("mean")
    file = vectors._cache(BLOCKS, "mean").folder / "vectors.npy"
    np.save(file, np.load(file)[1:])
    with pytest.raises(UserError, match=r"is damaged: delete it"):
        vectors.vectors("mean")


def test_reading_states_is_reading_them_item_by_item(texts: Dataset, opt: Path) -> None:
    tokens = tokens_of(opt, texts)
    states = np.random.default_rng(0).normal(size=(len(tokens.tokens), 4)).astype(np.float32)
    found = ItemStates(tokens, states).read(np.array([2, 2, 5]))
    plan = plan_batch(found.offsets.diff(), torch.device("cpu"))
    pooled = pool_texts(found.values[plan.token_order], plan, "mean")[plan.order.argsort()]
    for item, vector in zip((2, 2, 5), pooled, strict=True):
        own = states[tokens.offsets[item] : tokens.offsets[item + 1]]
        np.testing.assert_allclose(vector, own.mean(0), rtol=1e-5, atol=1e-6)
