"""Item tables: random, started from given vectors, frozen, with a residual, read through an adapter."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqrec.nn.item_table import ExpertMixture, GivenVectors, ItemTable, TableOptions

VECTORS = np.random.default_rng(0).normal(size=(31, 12)).astype(np.float32)
VECTORS[0] = 0
ITEMS = torch.tensor([3, 30, 3, 7])


def make(width: int = 8, **options: Any) -> ItemTable:
    options = {"init_transform": ("none",)} | options
    torch.manual_seed(0)
    return ItemTable(30, width, 0.02, GivenVectors(VECTORS, np.ones(31, dtype=bool), TableOptions(**options)))


def test_random_vectors() -> None:
    table = ItemTable(3000, 16, 0.1)
    assert table.vectors().shape == (3001, 16)
    assert not table.vectors()[0].any()
    assert table.vectors()[1:].std().item() == pytest.approx(0.1, rel=0.02)


def test_given_vectors_are_the_table() -> None:
    assert torch.equal(make(12).vectors(), torch.from_numpy(VECTORS))
    projected = make(8)
    assert torch.equal(projected.weight, torch.from_numpy(VECTORS))
    projection = projected.state_dict()["adapter.weight"]
    torch.testing.assert_close(projected.vectors(), torch.from_numpy(VECTORS) @ projection.T)


@pytest.mark.parametrize("adapter", ["linear", "mlp", "moe"])
@pytest.mark.parametrize("mode", ["init", "frozen", "residual", "adapter"])
@pytest.mark.parametrize("width", [8, 12])
def test_some_items_are_read_as_all_are(mode: str, adapter: str, width: int) -> None:
    table = make(width, init_mode=mode, adapter=adapter if mode == "adapter" else None).eval()
    if table.residual is not None:
        torch.nn.init.normal_(table.residual)
    assert table.vectors().shape == (31, width)
    torch.testing.assert_close(table(ITEMS), table.vectors()[ITEMS])


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({}, {"weight", "adapter.weight"}),
        ({"init_mode": "frozen"}, {"adapter.weight"}),
        ({"freeze_items": True}, {"adapter.weight"}),
        ({"init_mode": "residual"}, {"adapter.weight", "residual"}),
        ({"init_mode": "adapter"}, {"adapter.weight", "adapter.bias"}),
        ({"init_mode": "frozen", "unfreeze_at": 2}, {"weight", "adapter.weight"}),
    ],
)
def test_what_learns(options: dict[str, Any], learning: set[str]) -> None:
    table = make(**options)
    assert {name for name, parameter in table.named_parameters() if parameter.requires_grad} == learning


def test_a_residual_changes_nothing_at_first() -> None:
    with_residual, without = make(init_mode="residual"), make(init_mode="frozen")
    assert torch.equal(with_residual.vectors(), without.vectors())


def test_an_adapter_takes_items_without_interactions() -> None:
    # No parameter belongs to an item: whatever vector comes in is read as any other is.
    table = make(init_mode="adapter", adapter="mlp")
    assert sum(p.numel() for p in table.parameters() if p.requires_grad) == 12 * 8 + 8 + 8 * 8 + 8


def test_a_mixture_of_experts_is_that_of_the_equation() -> None:
    mixture = ExpertMixture(12, 8).eval()
    for parameter in (mixture.shift, mixture.gate, mixture.noise):
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 12)
    expected = torch.zeros(5, 8)
    for t in range(5):
        gates = F.softmax(x[t] @ mixture.gate, dim=0)
        for g in range(8):
            expected[t] += gates[g] * ((x[t] - mixture.shift[g]) @ mixture.weight[g])
    torch.testing.assert_close(mixture(x), expected)
    assert not torch.equal(mixture.train()(x), mixture(x))  # noise and dropout


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--freeze_items is --init_mode frozen, not residual: drop one"):
        TableOptions(freeze_items=True, init_mode="residual")
    with pytest.raises(ValueError, match="--adapter moe is for --init_mode adapter, not init"):
        TableOptions(adapter="moe")
    with pytest.raises(ValueError, match="--unfreeze_at must be at least 1 and is for vectors that are frozen first"):
        TableOptions(unfreeze_at=3)
