"""Losses over the catalogue against the plain formulas in float64."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqrec.nn.losses import (
    Extra,
    LossOptions,
    binary_cross_entropy,
    calibrated_cross_entropy,
    catalogue_loss,
    full_softmax,
    noise_contrastive,
    sampled_softmax,
)


def make_problem(count: int, num_items: int, width: int, scale: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(count, width, generator=generator)
    items = torch.randn(num_items + 1, width, generator=generator)
    return hidden, items, torch.randint(1, num_items + 1, (count,), generator=generator)


def plain_softmax(hidden: Tensor, items: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and both gradients by the formula, in float64."""
    h, v = hidden.detach().double().requires_grad_(), items.detach().double().requires_grad_()
    loss = F.cross_entropy(h @ v[1:].T, targets - 1)
    loss.backward()
    assert h.grad is not None
    assert v.grad is not None
    return loss.detach(), h.grad, v.grad


def assert_equals_plain(hidden: Tensor, items: Tensor, targets: Tensor, block_elements: int) -> None:
    h, v = hidden.clone().requires_grad_(), items.clone().requires_grad_()
    loss = full_softmax(h, v, targets, block_elements)
    loss.backward()
    assert h.grad is not None
    assert v.grad is not None
    expected, hidden_grad, item_grad = plain_softmax(hidden, items, targets)
    assert loss.dtype == torch.float32
    # What float32 loses of a logit is lost of its probability; a gradient weighs the other side's vectors with those.
    tolerance = 4e-7 * (10 + (hidden @ items.T).abs().max().item())
    assert loss.item() == pytest.approx(expected.item(), abs=tolerance)
    for ours, exact, other in ((h.grad, hidden_grad, items / len(hidden)), (v.grad, item_grad, hidden)):
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=tolerance * other.abs().max().item())
    assert not v.grad[0].any()


@pytest.mark.parametrize("scale", [1.0, 20.0])  # without a shift of the exponents, and with
@pytest.mark.parametrize("block_elements", [1 << 23, 300])
def test_what_is_added_to_some_scores_counts_and_learns(scale: float, block_elements: int) -> None:
    hidden, items, targets = make_problem(200, 30, 6, scale, 0)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 200, (400,), generator=generator).sort().values
    columns = torch.randint(1, 31, (400,), generator=generator)
    columns[:100] = targets[rows[:100]]
    values = torch.randn(400, generator=generator)
    ours = [x.clone().requires_grad_() for x in (hidden, items, values)]
    exact = [x.clone().double().requires_grad_() for x in (hidden, items, values)]
    loss = full_softmax(ours[0], ours[1], targets, block_elements, Extra(rows, columns, ours[2]))
    scores = (exact[0] @ exact[1].T).index_put((rows, columns), exact[2], accumulate=True)
    expected = F.cross_entropy(scores[:, 1:], targets - 1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for actual, gradient in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(actual.double(), gradient, rtol=1e-4, atol=2e-6 * scale)


def test_full_softmax_by_hand() -> None:
    # Scores of items 1, 2, 3 are 0, ln 2, ln 5: the sum of exponentials is 8, item 3 has probability 5/8.
    items = torch.tensor([[100.0], [0.0], [math.log(2)], [math.log(5)]], requires_grad=True)
    hidden = torch.tensor([[1.0]], requires_grad=True)
    loss = full_softmax(hidden, items, torch.tensor([3]))
    assert loss.item() == pytest.approx(math.log(8 / 5))
    loss.backward()
    assert items.grad is not None
    assert items.grad[:, 0].tolist() == pytest.approx([0, 1 / 8, 2 / 8, 5 / 8 - 1])


@given(
    count=st.integers(1, 40),
    num_items=st.integers(1, 60),
    width=st.sampled_from([1, 4, 17]),
    scale=st.sampled_from([0.01, 1.0, 5.0, 200.0]),  # the last two overflow an exponential without a shift
    block_elements=st.sampled_from([1, 7, 64, 300, 1 << 23]),
    seed=st.integers(0, 1000),
)
def test_full_softmax_equals_the_formula(
    count: int, num_items: int, width: int, scale: float, block_elements: int, seed: int
) -> None:
    hidden, items, targets = make_problem(count, num_items, width, scale, seed)
    assert_equals_plain(hidden, items, targets, block_elements)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("block_elements", [1, 1100 * 64, 1 << 23])
def test_full_softmax_in_several_blocks_of_rows(scale: float, block_elements: int) -> None:
    hidden, items, targets = make_problem(2500, 300, 8, scale, seed=3)
    assert_equals_plain(hidden, items, targets, block_elements)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_full_softmax_with_one_side_frozen(needs: tuple[bool, bool]) -> None:
    hidden, items, targets = make_problem(9, 20, 4, 1.0, seed=0)
    expected = plain_softmax(hidden, items, targets)[1:]
    tensors = [tensor.requires_grad_(need) for tensor, need in zip((hidden, items), needs, strict=True)]
    (3 * full_softmax(tensors[0], tensors[1], targets)).backward()
    for tensor, need, gradient in zip(tensors, needs, expected, strict=True):
        if need:
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad, (3 * gradient).float())
        else:
            assert tensor.grad is None


def test_full_softmax_without_gradients() -> None:
    hidden, items, targets = make_problem(50, 20, 4, 1.0, seed=0)
    with torch.no_grad():
        loss = full_softmax(hidden.requires_grad_(), items, targets, block_elements=64)
    assert loss.item() == pytest.approx(plain_softmax(hidden, items, targets)[0].item(), rel=1e-6)


@pytest.mark.parametrize("block_elements", [1, 1 << 23])
def test_full_softmax_in_bfloat16(block_elements: int) -> None:
    hidden, items, targets = make_problem(200, 50, 16, 1.0, seed=4)
    expected, hidden_grad, item_grad = plain_softmax(hidden, items, targets)
    h, v = hidden.bfloat16().requires_grad_(), items.bfloat16().requires_grad_()
    loss = full_softmax(h, v, targets, block_elements)
    loss.backward()
    assert h.grad is not None
    assert v.grad is not None
    assert (loss.dtype, h.grad.dtype, v.grad.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    for ours, exact in ((h.grad, hidden_grad), (v.grad, item_grad)):
        assert (ours.double() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("block_elements", [1, 1 << 23])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])  # what a norm gives, and what a linear layer does
def test_full_softmax_under_autocast(block_elements: int, precision: torch.dtype, given: torch.dtype) -> None:
    hidden, items, targets = make_problem(200, 50, 16, 1.7, seed=4)
    expected, hidden_grad, item_grad = plain_softmax(hidden, items, targets)
    h, v = hidden.to(given).requires_grad_(), items.requires_grad_()
    with torch.autocast("cpu", precision):
        loss = full_softmax(h, v, targets, block_elements)
    loss.backward()
    assert h.grad is not None
    assert v.grad is not None
    assert v.grad.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    for ours, exact in ((h.grad, hidden_grad), (v.grad, item_grad)):
        assert (ours.double() - exact).abs().max() < 0.05 * exact.abs().max()


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_full_softmax_never_holds_positions_times_items(scale: float) -> None:
    hidden, items, targets = make_problem(3000, 5000, 4, scale, seed=0)
    block = 1 << 16
    with Largest() as largest:
        full_softmax(hidden.requires_grad_(), items.requires_grad_(), targets, block).backward()
    assert largest.elements <= block < 3000 * 5000 / 200
    with Largest() as largest:
        plain_softmax(hidden, items, targets)
    assert largest.elements == 3000 * 5000  # the measure sees what it should


def test_sampled_softmax_of_all_items_is_the_full_softmax() -> None:
    hidden, items, targets = make_problem(30, 25, 6, 2.0, seed=1)
    hidden.requires_grad_()
    everything = torch.randperm(25, generator=torch.Generator().manual_seed(0)) + 1
    sampled = sampled_softmax(hidden, items, targets, everything, torch.zeros(25))
    full = full_softmax(hidden, items, targets)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(loss, hidden)[0] for loss in (sampled, full)))


def test_sampled_softmax_by_hand() -> None:
    # All scores are 0. Position one's target is among the negatives and left out, so one is left, drawn with chance
    # 1/4: exp(own) + 4. Position two's two negatives have chances 1/2 and 1/4: exp(own) + 2 + 4.
    hidden, items, chance = torch.zeros(2, 3), torch.zeros(6, 3), torch.tensor([0.5, 0.25])
    loss = sampled_softmax(hidden, items, torch.tensor([1, 2]), torch.tensor([1, 5]), chance.log())
    assert loss.item() == pytest.approx((math.log(5) + math.log(7)) / 2)


def test_sampled_softmax_estimates_the_full_one_without_bias() -> None:
    hidden, items, targets = make_problem(5, 12, 3, 0.7, seed=2)
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(12, generator=generator) + 0.1
    share /= share.sum()
    log_chance = (1 - (1 - share) ** 6).log()
    # The sum of exponentials is unbiased; its logarithm is not.
    masses = []
    for _ in range(1500):
        drawn = torch.multinomial(share, 6, replacement=True, generator=generator).unique()
        masses.append(sampled_mass(hidden, items, targets, drawn + 1, log_chance[drawn]))
    mass = torch.stack(masses).mean(0)
    torch.testing.assert_close(mass, (hidden @ items[1:].T).exp().sum(1), rtol=0.05, atol=0)


def sampled_mass(hidden: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, log_chance: Tensor) -> Tensor:
    own = (hidden * items[targets]).sum(1)
    rows = [slice(i, i + 1) for i in range(len(hidden))]
    losses = [sampled_softmax(hidden[row], items, targets[row], negatives, log_chance) for row in rows]
    return (torch.stack(losses) + own).exp()


def test_noise_contrastive_leaves_out_what_equals_the_target() -> None:
    hidden, items, _ = (x.double() for x in make_problem(3, 12, 4, 1.0, seed=5))
    items[7] = 2 * items[3]  # another item of the same direction
    targets, negatives = torch.tensor([3, 5, 7]), torch.tensor([3, 4, 7, 9])
    expected = 0.0
    for h, target in zip(hidden, targets.tolist(), strict=True):
        others = [n for n in negatives.tolist() if n != target and {n, target} != {3, 7}]
        expected -= float((items[[target, *others]] @ h).log_softmax(0)[0]) / 3
    assert float(noise_contrastive(hidden, items, targets, negatives, 0.99)) == pytest.approx(expected, rel=1e-6)
    assert float(noise_contrastive(hidden[:1], items, targets[:1], torch.tensor([3, 7]), 0.99)) == 0  # none is left


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_calibrated_cross_entropy_is_that_of_the_equation(t: float) -> None:
    hidden, items, targets = (x.double() if x.is_floating_point() else x for x in make_problem(7, 20, 4, 1.0, seed=3))
    hidden.requires_grad_()
    negatives = torch.tensor([3, 9, 14, int(targets[2])]).unique()
    loss = calibrated_cross_entropy(hidden, items, targets, negatives, 20, t)

    K = len(negatives)
    a = K / (20 - 1)
    b = a * (t * (1 - 1 / a) + 1 / a)
    total = torch.zeros((), dtype=torch.float64)
    for h, target in zip(hidden, targets.tolist(), strict=True):
        others = [h @ items[n] for n in negatives.tolist() if n != target]
        total = total - ((h @ items[target]).sigmoid() ** b).log() - sum((1 - s.sigmoid()).log() for s in others)
    expected = total / (len(targets) * (K + 1))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0, check_dtype=False)
    torch.testing.assert_close(
        torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(expected, hidden)[0], rtol=1e-5, atol=1e-8
    )


def test_without_calibration_it_is_plain_binary_cross_entropy() -> None:
    hidden, items, _ = make_problem(4, 9, 3, 1.0, seed=5)
    targets, negatives = torch.tensor([1, 2, 3, 4]), torch.tensor([7])
    plain = binary_cross_entropy(hidden, items, targets, negatives.expand(4))
    assert calibrated_cross_entropy(hidden, items, targets, negatives, 9, 0.0).item() == pytest.approx(plain.item() / 2)


def test_binary_cross_entropy_by_hand() -> None:
    # Positive scores 0 and ln 3, negative scores 0 and -ln 3: -log sigmoid is ln 2 and ln 4/3 on both sides.
    hidden = torch.tensor([[1.0], [1.0]])
    items = torch.tensor([[7.0], [0.0], [math.log(3)], [-math.log(3)]])
    loss = binary_cross_entropy(hidden, items, torch.tensor([1, 2]), torch.tensor([1, 3]))
    assert loss.item() == pytest.approx(math.log(2) + math.log(4 / 3))


def test_names() -> None:
    hidden, items, targets = make_problem(6, 9, 4, 1.0, seed=0)
    negatives, chance = torch.tensor([3, 1, 4, 5, 9, 2]), torch.rand(6).log()
    for loss, expected in (
        ("ce", full_softmax(hidden, items, targets)),
        ("bce", binary_cross_entropy(hidden, items, targets, negatives)),
        ("gbce", calibrated_cross_entropy(hidden, items, targets, negatives, 9, 0.75)),
        ("nce", noise_contrastive(hidden, items, targets, negatives, 0.99)),
        ("sampled_softmax", sampled_softmax(hidden, items, targets, negatives, chance)),
    ):
        options = LossOptions(loss=loss)  # type: ignore[arg-type]
        assert catalogue_loss(options, hidden, items, targets, negatives, chance, 9) == expected


def test_no_position() -> None:
    with pytest.raises(ValueError, match="at least one position; every training sequence has fewer than 2 items"):
        full_softmax(torch.zeros(0, 3), torch.zeros(4, 3), torch.zeros(0, dtype=torch.int64))
