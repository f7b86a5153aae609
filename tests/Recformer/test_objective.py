"""The contrast and the hidden words: losses by the equations, gradients in parts and over processes."""

import socket
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.backbone import load_pretraining
from Recformer.masking import Masked, WordMasker
from Recformer.pretrain import Config, PretrainModule
from Recformer.pretraining import Part, PretrainBatch, PretrainDataset, Side, contrast
from Recformer.text import ItemTokens, TokenBatch
from seqrec.dataset import Dataset, Histories
from seqrec.ragged import BatchKey
from tests import forked
from tests.Recformer.conftest import LIMITS


def all_events(dataset: Dataset) -> Histories:
    return Histories(dataset.items, np.arange(dataset.num_users), dataset.offsets[:-1], dataset.offsets[1:])


def make_batch(tiny: Dataset, items: ItemTokens, tokenizer: Any, part_size: int, rows: int = 12) -> PretrainBatch:
    data = PretrainDataset(all_events(tiny), items, 40, WordMasker.of(tokenizer), 0.15, part_size, seed=1)
    return data[BatchKey(np.arange(rows), 0, 0)]


def test_a_target_is_drawn_from_the_later_half_and_its_history_precedes_it(tiny: Dataset, items: ItemTokens) -> None:
    data = PretrainDataset(all_events(tiny), items, 1000, None, 0.15, 100, seed=1)
    rows, seen = np.arange(30), set()
    for epoch in range(60):
        batch = data[BatchKey(rows, epoch, 0)]
        tokens = batch.parts[0].histories.plain
        counts = [int(p.max()) for p in tokens.item_position_ids.split(tokens.lengths.tolist())]
        assert counts == sorted(counts)
        seen |= {(count, target) for count, target in zip(counts, batch.target_ids.tolist(), strict=True)}
    expected = set()
    for row in rows:
        start, length = data.sequences.starts[row], data.sequences.lengths[row]
        for at in range(max((length - 1) // 2, 1), length):
            expected.add((at, int(data.sequences.items[start + at])))
    assert seen == expected


def pretrain_module(backbone: Path, items: ItemTokens, mlm_pass: Any = "shared", **flags: Any) -> PretrainModule:
    torch.manual_seed(0)
    model, _ = load_pretraining(str(backbone), None, mlm_pass, attention_window=64, **LIMITS)
    for parameter in model.parameters():  # as it comes, all texts have nearly one vector, and gradients nearly cancel
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    config = Config(valid_dataset="other", mlm_pass=mlm_pass, **flags)
    module = PretrainModule(model, items, config)
    module.model.eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.all_gather = lambda value, **kwargs: value  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("mlm_pass", ["shared", "separate"])
def test_the_loss_is_that_of_the_equations(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path, mlm_pass: str
) -> None:
    module = pretrain_module(backbone, items, mlm_pass)
    batch = make_batch(tiny, items, tokenizer, part_size=100)
    loss = module.training_step(batch)

    encoder, head = module.model.longformer, module.model.lm_head
    part, vectors, mlm = batch.parts[0], [], torch.zeros(())
    for side in part:
        assert side.masked is not None
        hidden = TokenBatch(
            side.masked.input_ids, side.plain.token_type_ids, side.plain.item_position_ids, side.plain.offsets
        )
        read = encoder(hidden, all_tokens=True)
        vectors.append(read.pooled if mlm_pass == "shared" else encoder(side.plain).pooled)
        states = head.layer_norm(F.gelu(head.dense(read.tokens[side.masked.asked])))
        logits = states @ encoder.embeddings.word_embeddings.weight.T + head.bias
        mlm = mlm + F.cross_entropy(logits[:, 1:], side.masked.labels - 1)
    scores = F.cosine_similarity(vectors[0][:, None], vectors[1][None], dim=2) / 0.05
    total = torch.zeros(())
    for i, target in enumerate(batch.target_ids.tolist()):
        others = [j for j, other in enumerate(batch.target_ids.tolist()) if j == i or other != target]
        total = total + scores[i, others].logsumexp(0) - scores[i, i]
    expected = total / len(scores) + 0.1 * mlm
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def gradients(module: PretrainModule, batch: PretrainBatch) -> dict[str, Tensor]:
    module.zero_grad()
    module.training_step(batch).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_close_gradients(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for name in left:
        off, scale = float((left[name] - right[name]).abs().max()), float(right[name].abs().max())
        # A key's bias shifts all scores of a query alike: its gradient is zero, and what is left of it is rounding.
        assert off <= 1e-3 * scale + 1e-7 * largest, f"{name}: off by {off} of {scale}"


def cut_tokens(batch: TokenBatch, rows: range) -> TokenBatch:
    a, b = int(batch.offsets[rows.start]), int(batch.offsets[rows.stop])
    ids, types, items = (x[a:b] for x in (batch.input_ids, batch.token_type_ids, batch.item_position_ids))
    return TokenBatch(ids, types, items, batch.offsets[rows.start : rows.stop + 1] - a)


def cut_part(part: Part, rows: range) -> Part:
    """Return some rows of a part, hidden where they were."""
    sides = []
    for side in part:
        assert side.masked is not None
        a, b = int(side.plain.offsets[rows.start]), int(side.plain.offsets[rows.stop])
        inside = (side.masked.asked >= a) & (side.masked.asked < b)
        masked = Masked(side.masked.input_ids[a:b], side.masked.asked[inside] - a, side.masked.labels[inside])
        sides.append(Side(cut_tokens(side.plain, rows), masked))
    return Part(*sides)


def test_reading_a_batch_in_parts_changes_nothing(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    whole = make_batch(tiny, items, tokenizer, part_size=100)
    parts = whole._replace(parts=[cut_part(whole.parts[0], rows) for rows in (range(5), range(5, 10), range(10, 12))])
    torch.testing.assert_close(module.training_step(parts), module.training_step(whole), rtol=1e-5, atol=1e-5)
    assert_close_gradients(gradients(module, parts), gradients(module, whole))


def one_of_two(rank: int, port: int, batch: PretrainBatch, backbone: Path, items: ItemTokens, out: Path) -> None:
    """Write what one process gets as loss and, averaged over both as DDP does, as gradients."""
    from lightning_fabric.utilities.distributed import _all_gather_ddp_if_available

    torch.distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    module = pretrain_module(backbone, items)
    module.all_gather = partial(_all_gather_ddp_if_available, group=None)  # type: ignore[method-assign]
    type(module).global_rank = rank  # type: ignore[assignment]
    rows = range(7) if rank == 0 else range(7, 12)
    mine = PretrainBatch([cut_part(batch.parts[0], rows)], batch.target_ids[rows.start : rows.stop])
    loss = module.training_step(mine)
    loss.backward()
    found = {"loss": loss.detach()} | {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    for tensor in found.values():
        torch.distributed.all_reduce(tensor)
    torch.save({name: tensor / 2 for name, tensor in found.items()}, out)


def test_two_processes_have_the_loss_and_the_gradients_of_one(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path, tmp_path: Path
) -> None:
    whole = make_batch(tiny, items, tokenizer, part_size=100)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        forked.start(one_of_two, r, port, whole, backbone, items, tmp_path / f"{r}.pt", output=tmp_path / f"said.{r}")
        for r in range(2)
    ]
    module = pretrain_module(backbone, items)
    alone = gradients(module, whole) | {"loss": module.training_step(whole).detach()}
    for rank, process in enumerate(processes):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / f"said.{rank}").read_text()
        assert_close_gradients(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)


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
    histories, targets = torch.eye(4)[:3], torch.eye(4)[:3] + 0.1
    ids = torch.tensor([7, 7, 9])
    losses, _ = contrast(histories, targets, ids, ids, 0, 1.0)
    scores = F.normalize(histories, dim=1) @ F.normalize(targets, dim=1).T
    for i, others in ((0, [0, 2]), (1, [1, 2]), (2, [0, 1, 2])):
        torch.testing.assert_close(losses[i], scores[i, others].logsumexp(0) - scores[i, i])
