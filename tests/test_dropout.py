"""Dropout against its definition."""

import pytest
import torch

from seqrec.nn.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_it_drops_the_share_asked_for_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = dropout(torch.ones(200, 1001), p)
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=0.005)
    torch.testing.assert_close(out[out != 0].unique(), torch.tensor([1 / (1 - p)]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_shape_stay(dtype: torch.dtype) -> None:
    out = dropout(torch.ones(3, 5, dtype=dtype), 0.5)
    assert (out.dtype, out.shape) == (dtype, (3, 5))


def test_nothing_is_dropped_at_zero_or_outside_training() -> None:
    x = torch.randn(4, 7)
    assert dropout(x, 0.0) is x
    assert Dropout(0.9).eval()(x) is x
