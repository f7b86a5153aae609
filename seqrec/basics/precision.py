"""The precision of matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor


def allow_tensor_cores() -> None:
    """Let a GPU multiply float32 matrices in TensorFloat-32, except within `full_precision`."""
    torch.set_float32_matmul_precision("high")


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Keep matrix products in float32, regardless of autocast and TensorFloat-32 outside."""
    setting = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(setting)


@contextmanager
def halves_if_worth_it(weights: Tensor, rows: int) -> Iterator[None]:
    """On a processor, keep products of few rows in float32, regardless of autocast outside.

    Their kernels in half precision are compiled anew for every number of rows, and batches of events have many.

    Args:
        weights: Of the width of the products; in half precision itself, it asks for such products.
        rows: Of the other matrix.
    """
    few = weights.device.type == "cpu" and rows * weights.shape[1] < _WORTH_IT
    if few and weights.dtype == torch.float32:
        with torch.autocast("cpu", enabled=False):
            yield
    else:
        yield


_WORTH_IT = 1 << 17
"""Rows times width at which half precision begins to pay on a processor."""
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Precision of matrix products; sums, norms and ranking stay float32."""
HALVES: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Numbers of each precision but float32."""
