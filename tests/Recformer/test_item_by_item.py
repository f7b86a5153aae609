"""Histories that are read item by item, against the equations."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.backbone import load_backbone
from Recformer.item_batches import ItemTrainDataset, read_events
from Recformer.item_module import ItemwiseModule, whitening
from Recformer.options import FinetuneConfig, ItemwiseOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.ranking import rank_scores, seen_pairs
from seqrec.serving.export import export_run
from seqrec.serving.folder import read_manifest
from seqrec.serving.options import ExportOptions
from seqrec.text.options import EncoderOptions
from seqrec.text.sequences import build_sequences, item_sequences, split_items
from seqrec.text.tokens import ItemTokens, tokenize_items
from seqrec.training.batches import HeldOut
from seqrec.training.restore import load_run
from tests.forked import run_script
from tests.grown import ORDER, write_grown
from tests.Recformer.conftest import LIMITS
from tests.Recformer.test_finetune import assert_a_kill_leaves_no_trace, flags
from tests.recommending import assert_recommends_as_it_was_tested
from tests.two_processes import BATCH_SIZE, assert_two_are_one, split_batches

BESIDE = ["--whiten", "--item_bias", "--repeat_score", "--user_map"]
LEARNT = ["--pooler_type", "items", "--train_items", *BESIDE]


def items_of(dataset: Dataset, row: int) -> list[int]:
    """Return a test history, the most recent item first."""
    histories = leave_one_out(dataset).test
    found: list[int] = histories.items[histories.starts[row] : histories.ends[row]][::-1].tolist()
    return found


def test_histories_fall_into_their_items(tiny: Dataset, items: ItemTokens) -> None:
    histories = leave_one_out(tiny).test
    starts, ends = histories.starts[:6].copy(), histories.ends[:6]
    starts[2] = ends[2]  # an empty history
    batch = build_sequences(histories.items, starts, ends, items)
    found = split_items(batch)
    ids = [i for row in (0, 1, 3, 4, 5) for i in items_of(tiny, row)]
    apart = item_sequences(np.array(ids), items)
    (empty,) = (found.owner == 2).nonzero()[:, 0].tolist()
    at = int(found.texts.offsets[empty])
    assert found.texts.lengths[empty] == 1
    assert found.texts.input_ids[at] == items.cls_token_id
    for name in ("input_ids", "token_type_ids", "item_position_ids"):
        values = getattr(found.texts, name)
        assert torch.equal(torch.cat([values[:at], values[at + 1 :]]), getattr(apart, name))
        if name != "item_position_ids":
            assert torch.equal(values[found.became], getattr(batch, name))
    for row in range(6):
        mine = found.owner == row
        assert found.place[mine].tolist() == list(range(int(mine.sum())))


@pytest.fixture(scope="module")
def encode(tiny: Dataset, backbone: Path) -> Any:
    """An encoder that reads item by item, weights that tell texts apart."""
    torch.manual_seed(0)
    model, _ = load_backbone(str(backbone), pooler_type="items", item_decay=0.7, **LIMITS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return model.eval()


def test_a_history_is_the_mean_of_its_items_by_how_recent_they_are(
    tiny: Dataset, items: ItemTokens, encode: Any
) -> None:
    histories = leave_one_out(tiny).test
    batch = build_sequences(histories.items, histories.starts[:5], histories.ends[:5], items)
    read = encode(batch, all_tokens=True)
    for row in range(5):
        ids = items_of(tiny, row)
        alone = encode(item_sequences(np.array(ids), items), all_tokens=True)
        assert alone.pooled.norm(dim=1).tolist() == pytest.approx([1] * len(ids))
        expected = sum((0.7**place * vector for place, vector in enumerate(alone.pooled)), torch.zeros(16))
        torch.testing.assert_close(read.pooled[row], expected, atol=1e-5, rtol=1e-5)
        first = int(1 + items.lengths[ids[0]])  # its tokens, the class token's too, are those of the item alone
        start = int(batch.offsets[row])
        torch.testing.assert_close(read.tokens[start : start + first], alone.tokens[:first], atol=1e-5, rtol=1e-5)


def make_module(encode: Any, items: ItemTokens, backbone: Path, **given: Any) -> ItemwiseModule:
    train_items = given.pop("train_items", False)
    encoder = EncoderOptions(str(backbone), pooler_type="items", temp=0.2, **LIMITS)
    config = FinetuneConfig(encoder=encoder, itemwise=ItemwiseOptions(**given), train_items=train_items)
    module = ItemwiseModule(encode, items, config)
    module.encode()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (module.item_bias, module.repeat_score, module.user_map):
            if parameter is not None:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    module.train_items = train_items
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.model.eval()
    return module


def score(module: ItemwiseModule, history: list[int], vectors: Tensor) -> Tensor:
    """Return the (N+1,) scores of all items after a history, the most recent first, by the equations."""
    user = F.normalize(sum((0.7**place * vectors[i] for place, i in enumerate(history)), torch.zeros(16)), dim=0) / 0.2
    if module.user_map is not None:
        user = user + user @ module.user_map
    scores = vectors @ user
    if module.item_bias is not None:
        scores = scores + module.item_bias
    if module.repeat_score is not None:
        had = torch.zeros(len(vectors))
        had[history] = 1.0
        scores = scores + module.repeat_score * had
    return scores


EVERYTHING = {"whiten": True, "item_bias": True, "repeat_score": True, "user_map": True}


@pytest.mark.parametrize("given", [{}, {"item_bias": True}, {"repeat_score": True}, EVERYTHING])
@pytest.mark.parametrize("filter_seen", [False, True])
def test_ranks_are_those_of_the_equations(
    tiny: Dataset, items: ItemTokens, backbone: Path, encode: Any, given: dict[str, bool], filter_seen: bool
) -> None:
    module = make_module(encode, items, backbone, **given)
    histories, rows = leave_one_out(tiny).test, np.arange(12)
    targets = torch.from_numpy(histories.targets[rows].astype(np.int64))
    seen = seen_pairs(histories, rows) if filter_seen else None
    with torch.no_grad():
        vectors = module.item_vectors()
        batch = HeldOut(read_events(histories, rows), torch.from_numpy(rows), targets, None, (seen,))
        (found,) = module.rank(batch, vectors)
        table = module.read(module.item_table)
        scores = torch.stack([score(module, items_of(tiny, row), table) for row in range(12)])
    expected = rank_scores(scores, targets, seen=seen)
    assert (found.ranks - expected.ranks).abs().max() <= 1  # scores that differ in their last bits
    assert (found.ranks != expected.ranks).sum() <= 1
    assert torch.equal(found.num_candidates, expected.num_candidates)


@pytest.mark.parametrize("given", [{}, EVERYTHING])
@pytest.mark.parametrize(("train_items", "num_negatives"), [(False, 0), (True, 0), (True, 6), (False, 6)])
def test_the_loss_is_that_of_the_equations(
    tiny: Dataset,
    items: ItemTokens,
    backbone: Path,
    encode: Any,
    given: dict[str, bool],
    train_items: bool,
    num_negatives: int,
) -> None:
    module = make_module(encode, items, backbone, train_items=train_items, **given)
    train = leave_one_out(tiny).train.select(np.arange(7))
    data = ItemTrainDataset(train, items, LIMITS["max_token_num"], num_negatives, 1, True, train_items)
    batch = data[BatchKey(np.arange(len(data.sequences)), 0, 0)]
    loss = module.training_step(batch)

    fresh = module.read(encode(item_sequences(np.arange(1, items.num_items + 1), items)).pooled)
    vectors = torch.cat([torch.zeros(1, 16), fresh])
    sequences, losses = data.sequences, []
    for row in range(len(sequences)):
        events = sequences.items[sequences.starts[row] : sequences.ends[row]].tolist()
        for at in range(1, len(events)):
            scores = score(module, events[:at][::-1], vectors)
            own = events[at]
            if batch.classes is None:
                losses.append(scores[1:].logsumexp(0) - scores[own])
                continue
            ids = batch.classes.ids.tolist()
            logits = [
                scores[i] - (0 if i == own else chance) for i, chance in zip(ids, batch.classes.log_chance, strict=True)
            ]
            losses.append(torch.stack(logits).logsumexp(0) - scores[own])
    assert len(losses) == len(batch.targets)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    if batch.classes is not None:
        drawn = set(batch.targets.tolist())
        assert drawn <= set(batch.classes.ids.tolist())
        assert len(batch.classes.ids) <= len(drawn) + num_negatives


def steps(rank: int, world_size: int, data: Path, backbone: Path) -> Iterator[tuple[Any, Any]]:
    """Yield a module and one process's share of each batch; the last has one row."""
    dataset = load_dataset(data)
    for train_items, num_negatives in ((True, 4), (False, 0)):
        torch.manual_seed(0)
        model, tokenizer = load_backbone(str(backbone), pooler_type="items", **LIMITS)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
        items = tokenize_items(dataset.item_table(), dataset.attributes, tokenizer, 3, LIMITS["max_attr_length"])
        module = make_module(model.eval(), items, backbone, train_items=train_items, **EVERYTHING)
        train = leave_one_out(dataset).train.select(np.arange(BATCH_SIZE + 1))
        batches = ItemTrainDataset(train, items, LIMITS["max_token_num"], num_negatives, 1, True, train_items)
        for key in split_batches(batches.sequences.lengths, rank, world_size):
            yield module, batches[key]


def test_two_processes_have_the_losses_and_the_gradients_of_one(
    tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    assert_two_are_one(steps, tiny_path, backbone, folder=tmp_path)


def test_items_without_events_keep_their_bias(tiny: Dataset, items: ItemTokens, backbone: Path, encode: Any) -> None:
    module = make_module(encode, items, backbone, item_bias=True)
    assert module.item_bias is not None
    known = torch.arange(items.num_items + 1) % 3 > 0
    module.learn_biases_of(known)
    train = leave_one_out(tiny).train.select(np.arange(7))
    module.training_step(ItemTrainDataset(train, items, 40, 0, 1)[BatchKey(np.arange(5), 0, 0)]).backward()
    assert module.item_bias.grad is not None
    assert torch.equal(module.item_bias.grad != 0, known)


def test_a_long_history_gives_a_stretch_of_targets(tiny: Dataset, items: ItemTokens) -> None:
    whole = tiny.whole_histories()
    long = replace(whole, starts=whole.starts[:1], ends=whole.ends[-1:], users=whole.users[:1])
    data = ItemTrainDataset(long, items, 40, 0, 1)
    firsts = set()
    for epoch in range(20):
        batch = data[BatchKey(np.array([0]), epoch, 0)]
        assert len(batch.targets) == 49
        assert batch.ids is not None
        assert batch.inputs.place.max() == 48
        at = batch.inputs.owner == 0
        first = batch.ids[batch.inputs.items[at]].tolist()
        assert len(first) == 1
        firsts.add((first[0], int(batch.targets[0])))
    assert len(firsts) > 1


def test_whitened_vectors_are_uncorrelated() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(500, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    matrix = whitening(vectors)
    torch.testing.assert_close(matrix, matrix.T)
    white = vectors @ matrix
    torch.testing.assert_close(white.T @ white / 500, torch.eye(6), atol=1e-2, rtol=0)


@pytest.fixture(scope="module")
def finished(tiny_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that learnt everything."""
    folder = tmp_path_factory.mktemp("item-by-item")
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, folder, *LEARNT), output=folder / "log")
    return folder


def test_a_killed_run_ends_as_if_it_had_not_been(
    finished: Path, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    assert_a_kill_leaves_no_trace(finished, tmp_path, flags(tiny_path, backbone, tmp_path, *LEARNT))


def test_its_encoder_starts_another_run(finished: Path, tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    best = finished / "runs/Recformer/tiny/longformer-seed42/stage1/checkpoints/best.ckpt"
    more = ("--pooler_type", "items", "--test_only", "--pretrain_ckpt", str(best))
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, *more), output=tmp_path / "log")
    found, expected = (
        np.load(folder / "embedding/tiny" / name)
        for folder, name in ((tmp_path, "pretrain.npy"), (finished, "finetune.npy"))
    )
    np.testing.assert_array_equal(found, expected)


def test_it_recommends_as_it_was_tested(finished: Path, tiny_path: Path) -> None:
    assert_recommends_as_it_was_tested(finished / "runs/Recformer/tiny/longformer-seed42", tiny_path)


def test_known_items_keep_their_scores_in_a_grown_catalogue(
    finished: Path, tiny: Dataset, tiny_path: Path, tmp_path: Path
) -> None:
    run = finished / "runs/Recformer/tiny/longformer-seed42"
    grown = write_grown(tiny, tmp_path / "grown")
    (_, before), (_, after) = load_run(run, tiny_path), load_run(run, tiny_path, grown)
    known, everything = before.module.item_vectors(), after.module.item_vectors()
    was_known = ORDER <= 40
    torch.testing.assert_close(everything[1:][was_known], known[ORDER[was_known]], rtol=0, atol=1e-5)
    assert not everything[1:][~was_known][:, -1].any()
    assert known[1:, -1].any()


def test_a_run_is_exported(finished: Path, tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    options = ExportOptions(forms=("fp32",))
    run = "runs/Recformer/tiny/longformer-seed42"
    export_run(finished / run, tmp_path / "repeats", None, (tiny_path, None), False, options)
    assert read_manifest(tmp_path / "repeats")["repeat_score"] != 0
    more = ("--pooler_type", "items", "--freeze_encoder", "--whiten", "--item_bias", "--user_map")
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, *more), output=tmp_path / "log")
    export_run(tmp_path / run, tmp_path / "exported", None, (tiny_path, None), False, options)  # compares user vectors
    manifest = read_manifest(tmp_path / "exported")
    assert (manifest["event_width"], manifest["repeat_score"]) == (16, 0)


@pytest.mark.parametrize("more", [(), ("--whiten", "--repeat_score", "--finetune_negative_sample_size", "5")])
def test_histories_learn_against_a_table_that_validation_renews(
    tiny_path: Path, backbone: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    given = flags(tiny_path, backbone, tmp_path, "--pooler_type", "items", "--item_refresh", "steps:2", *more)
    run_script("Recformer/finetune.py", *given, output=tmp_path / "log")
    assert_recommends_as_it_was_tested(tmp_path / "runs/Recformer/tiny/longformer-seed42", tiny_path)


def test_a_frozen_encoder_keeps_its_vectors(tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    more = ("--pooler_type", "items", "--freeze_encoder", *BESIDE)
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, *more), output=tmp_path / "log")
    assert [path.name for path in (tmp_path / "embedding/tiny").glob("*.npy")] == ["longformer.npy"]
    run = tmp_path / "runs/Recformer/tiny/longformer-seed42"
    assert_recommends_as_it_was_tested(run, tiny_path)
    assert not (run / "stage2").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"itemwise": ItemwiseOptions(whiten=True)}, "--whiten: only with --pooler_type items"),
        (
            {
                "itemwise": ItemwiseOptions(item_bias=True, freeze_encoder=True),
                "encoder": EncoderOptions(pooler_type="items"),
                "train_items": True,
            },
            "--freeze_encoder trains no encoder",
        ),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FinetuneConfig(**given)


def test_freezing_leaves_something_to_learn() -> None:
    with pytest.raises(UserError, match="leaves nothing to learn"):
        ItemwiseOptions(freeze_encoder=True)
