"""Which products of matrices are in half precision."""

import pytest
import torch
from torch import nn

from seqrec.basics.precision import halves_if_worth_it


@pytest.mark.parametrize(
    ("rows", "given", "expected"),
    [
        (2047, torch.float32, torch.float32),  # 64 numbers each
        (2048, torch.float32, torch.bfloat16),
        (2047, torch.bfloat16, torch.bfloat16),  # weights that are in half precision can't be multiplied by float32
    ],
)
def test_few_rows_stay_in_float32(rows: int, given: torch.dtype, expected: torch.dtype) -> None:
    layer = nn.Linear(64, 64, dtype=given)
    with torch.autocast("cpu", torch.bfloat16), halves_if_worth_it(layer.weight, rows):
        assert layer(torch.randn(rows, 64)).dtype == expected
        assert torch.is_autocast_enabled("cpu") == (expected == torch.bfloat16)
    with halves_if_worth_it(layer.weight, rows):
        assert not torch.is_autocast_enabled("cpu")
