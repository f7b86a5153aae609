"""The contrast and the hidden words: losses by the equations, gradients in parts and over processes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.backbone import load_pretraining
from Recformer.options import PretrainConfig as Config
from Recformer.pretrain_module import PretrainModule
from Recformer.pretraining import Classes, PretrainBatch, PretrainDataset, contrast
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, Histories, load_dataset
from seqrec.text.masking import WordMasker
from seqrec.text.options import LearningOptions
from seqrec.text.sequences import TokenBatch
from seqrec.text.tokens import ItemTokens
from tests.Recformer.conftest import LIMITS
from tests.two_processes import BATCH_SIZE, assert_two_are_one, split_batches


def all_events(dataset: Dataset) -> Histories:
    return Histories(dataset.items, np.arange(dataset.num_users), dataset.offsets[:-1], dataset.offsets[1:])


def make_batch(
    tiny: Dataset,
    items: ItemTokens,
    tokenizer: Any,
    part_size: int,
    rows: int = 12,
    window: int = 1,
    item_by_item: bool = False,
) -> PretrainBatch:
    masker = WordMasker.of(tokenizer)
    data = PretrainDataset(all_events(tiny), items, 40, masker, 0.15, part_size, 1, window, item_by_item)
    return data[BatchKey(np.arange(rows), 0, 0)]


def test_a_target_is_drawn_from_the_later_half_and_its_history_precedes_it(tiny: Dataset, items: ItemTokens) -> None:
    data = PretrainDataset(all_events(tiny), items, 1000, None, 0.15, 100, seed=1)
    rows, seen = np.arange(30), set()
    for epoch in range(60):
        batch = data[BatchKey(rows, epoch, 0)]
        histories = batch.parts[0].histories
        assert histories is not None
        tokens = histories.plain
        counts = [int(p.max()) for p in tokens.item_position_ids.split(tokens.lengths.tolist())]
        assert counts == sorted(counts)
        seen |= {(count, target) for count, target in zip(counts, batch.target_ids.tolist(), strict=True)}
    expected = set()
    for row in rows:
        start, length = data.sequences.starts[row], data.sequences.lengths[row]
        for at in range(max((length - 1) // 2, 1), length):
            expected.add((at, int(data.sequences.items[start + at])))
    assert seen == expected


def test_a_window_ends_with_the_target(tiny: Dataset, items: ItemTokens) -> None:
    data = PretrainDataset(all_events(tiny), items, 1000, None, 0.15, 100, seed=1, window=3)
    for row, start in enumerate(data.sequences.starts):
        batch = data[BatchKey(np.array([row]), 0, 0)]
        histories = batch.parts[0].histories
        assert histories is not None
        target = start + int(histories.plain.item_position_ids.max())
        assert batch.target_ids.tolist() == [data.sequences.items[target]]
        assert batch.item_ids.tolist() == data.sequences.items[max(start, target - 2) : target + 1].tolist()


def pretrain_module(backbone: Path, items: ItemTokens, mlm_pass: Any = "shared", **flags: Any) -> PretrainModule:
    torch.manual_seed(0)
    untie = flags.get("untie_decoder", False)
    model, _ = load_pretraining(str(backbone), None, mlm_pass, untie, attention_window=64, **LIMITS)
    for parameter in model.parameters():  # as it comes, all texts have nearly one vector, and gradients nearly cancel
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    config = Config(valid_dataset="other", mlm_pass=mlm_pass, **flags)
    module = PretrainModule(model, items, config)
    module.model.eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.all_gather = lambda value, **kwargs: value  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize(
    ("mlm_pass", "untie", "window"),
    [("shared", False, 1), ("separate", False, 1), ("shared", True, 1), ("shared", False, 4)],
)
def test_the_loss_is_that_of_the_equations(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path, mlm_pass: str, untie: bool, window: int
) -> None:
    module = pretrain_module(backbone, items, mlm_pass, untie_decoder=untie)
    batch = make_batch(tiny, items, tokenizer, part_size=100, window=window)
    loss = module.training_step(batch)

    encoder, head = module.model.longformer, module.model.lm_head
    table = encoder.embeddings.word_embeddings if head.decoder is None else head.decoder
    assert (table is head.decoder) == untie
    part, vectors, mlm = batch.parts[0], [], torch.zeros(())
    for side in (part.histories, part.items):
        assert side is not None
        assert side.masked is not None
        hidden = TokenBatch(
            side.masked.input_ids, side.plain.token_type_ids, side.plain.item_position_ids, side.plain.offsets
        )
        read = encoder(hidden, all_tokens=True)
        vectors.append(read.pooled if mlm_pass == "shared" else encoder(side.plain).pooled)
        states = head.layer_norm(F.gelu(head.dense(read.tokens[side.masked.asked])))
        logits = states @ table.weight.T + head.bias
        mlm = mlm + F.cross_entropy(logits[:, 1:], side.masked.labels - 1)
    histories, texts = vectors
    ids, begin = batch.item_ids.tolist(), 0
    total, by_items = [], []
    for user, size in enumerate(batch.windows.tolist()):
        events = range(begin, begin + size)
        begin += size

        def cross_entropy(query: Tensor, own: int, events: range = events) -> Tensor:
            scores = F.cosine_similarity(query, texts, dim=1) / 0.05
            others = [j for j in range(len(ids)) if j == own or (ids[j] != ids[own] and j not in events)]
            return scores[others].logsumexp(0) - scores[own]

        total.append(cross_entropy(histories[user], events[-1]))
        for own in events[1:]:
            before = [0.5 ** (own - j) * F.normalize(texts[j], dim=0) for j in events if j < own]
            by_items.append(cross_entropy(torch.stack(before).sum(0), own))
    assert begin == len(ids) and bool(by_items) == (window > 1)
    expected = torch.stack(total).mean() + 0.1 * mlm
    if by_items:
        expected = expected + torch.stack(by_items).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_item_by_item_a_history_is_the_mean_of_its_windows_items(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    plain, alone = (make_batch(tiny, items, tokenizer, 5, window=4, item_by_item=given) for given in (False, True))
    assert torch.equal(plain.item_ids, alone.item_ids)
    assert all(part.histories is None for part in alone.parts)
    assert int(module._counts(alone)[0, 1]) == 0  # no word of a history is hidden
    _, items_read, means, _, _ = module.model(plain.parts)
    histories, vectors, means_alone, history_loss, _ = module.model(alone.parts)
    assert history_loss == 0
    torch.testing.assert_close(vectors, items_read)
    torch.testing.assert_close(means_alone, means)
    targets = torch.searchsorted(alone.later_rows, alone.windows.cumsum(0) - 1)
    torch.testing.assert_close(histories, means[targets])
    module.training_step(alone).backward()


def gradients(module: PretrainModule, batch: PretrainBatch) -> dict[str, Tensor]:
    module.zero_grad()
    module.training_step(batch).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_an_untied_decoder_learns_beside_fixed_word_embeddings(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    learning = LearningOptions(fix_word_embedding=True)
    found = {}
    for untie in (False, True):
        module = pretrain_module(backbone, items, untie_decoder=untie, learning=learning)
        found[untie] = gradients(module, make_batch(tiny, items, tokenizer, part_size=100))
    decoder = "model.lm_head.decoder.weight"
    assert found[True].keys() - found[False].keys() == {decoder}
    assert "model.longformer.embeddings.word_embeddings.weight" not in found[True]
    assert found[True][decoder][1:].abs().max() > 0
    assert not found[True][decoder][0].any()  # the padding is no class
    with pytest.raises(ValueError, match="--untie_decoder is for hidden words, which --mlm_weight 0 leaves out"):
        Config(valid_dataset="other", untie_decoder=True, mlm_weight=0.0)


def assert_close_gradients(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for name in left:
        off, scale = float((left[name] - right[name]).abs().max()), float(right[name].abs().max())
        # A key's bias shifts all scores of a query alike: its gradient is zero, and what is left of it is rounding.
        assert off <= 1e-3 * scale + 1e-7 * largest, f"{name}: off by {off} of {scale}"


def test_reading_a_batch_in_parts_changes_nothing(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    whole = make_batch(tiny, items, tokenizer, part_size=100, window=3)
    parts = make_batch(tiny, items, tokenizer, part_size=5, window=3)
    assert len(parts.parts) == 3
    torch.testing.assert_close(module.training_step(parts), module.training_step(whole), rtol=1e-5, atol=1e-5)
    assert_close_gradients(gradients(module, parts), gradients(module, whole))


def steps(rank: int, world_size: int, data: Path, backbone: Path, items: ItemTokens) -> Iterator[tuple[Any, Any]]:
    """Yield a module and one process's share of each batch; the last batch has one row."""
    from lightning_fabric.utilities.distributed import _all_gather_ddp_if_available

    module = pretrain_module(backbone, items)
    if world_size > 1:
        module.all_gather = partial(_all_gather_ddp_if_available, group=None)  # type: ignore[method-assign]
        type(module).global_rank = rank  # type: ignore[assignment]
    _, tokenizer = load_pretraining(str(backbone), None, "shared", attention_window=64, **LIMITS)
    histories = all_events(load_dataset(data)).select(np.arange(BATCH_SIZE + 1))
    corpus = PretrainDataset(histories, items, 40, WordMasker.of(tokenizer), 0.15, 3, 1, window=3)
    for key in split_batches(corpus.sequences.lengths, rank, world_size):
        yield module, corpus[key]


def test_two_processes_have_the_loss_and_the_gradients_of_one(
    tiny_path: Path, items: ItemTokens, backbone: Path, tmp_path: Path
) -> None:
    assert_two_are_one(steps, tiny_path, backbone, items, folder=tmp_path)


def test_parts_hold_their_dropout_when_they_are_read_again(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    module.model.train()
    batch = make_batch(tiny, items, tokenizer, part_size=4)
    torch.manual_seed(5)
    first = gradients(module, batch)
    torch.manual_seed(5)
    assert_close_gradients(first, gradients(module, batch))


def test_the_same_item_is_no_negative_of_itself() -> None:
    histories, targets = torch.eye(4)[:3], F.normalize(torch.eye(4)[:3] + 0.1)
    losses, _ = contrast(histories, Classes(targets, torch.tensor([7, 7, 9]), torch.arange(3)), torch.arange(3), 1.0)
    scores = histories @ targets.T
    for i, others in ((0, [0, 2]), (1, [1, 2]), (2, [0, 1, 2])):
        torch.testing.assert_close(losses[i], scores[i, others].logsumexp(0) - scores[i, i])
