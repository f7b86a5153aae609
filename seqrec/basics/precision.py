"""The precision of matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


def allow_tensor_cores() -> None:
    """Let a GPU round the factors of float32 products to TensorFloat-32 where `full_precision` does not forbid it."""
    torch.set_float32_matmul_precision("high")


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Keep matrix products in float32, whatever autocast and the setting for TensorFloat-32 say outside."""
    setting = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(setting)


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Of matrix products; what is added up, normalised and ranked stays float32."""
