"""Checks of flags, with messages that name the flag."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from seqrec.basics.errors import UserError

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy accepts."""


def require_at_least(low: float, options: Any, *names: str) -> None:
    """Check that fields of a dataclass are `low` or more; those that are None are not checked.

    Raises:
        UserError: If one is not.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value >= low:  # written so that NaN is refused too
            raise UserError(f"--{name} must be at least {low}, got {value}")


def require_above(low: float, options: Any, *names: str) -> None:
    """Check that fields of a dataclass are above `low`; those that are None are not checked.

    Raises:
        UserError: If one is not.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > low:
            raise UserError(f"--{name} must be above {low}, got {value}")


def require_at_most(high: float, options: Any, *names: str) -> None:
    """Check that fields of a dataclass are `high` or less; those that are None are not checked.

    Raises:
        UserError: If one is not: a typing error must not fill the memory.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value <= high:
            raise UserError(f"--{name} must be at most {high:,}, got {value:,}")


def find_device(device: str) -> str:
    """Return the device that `--device` names; for auto, a GPU if there is one.

    Raises:
        UserError: If it is not.
    """
    import torch  # takes a second, and most commands that check numbers have no device

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= there:
        raise UserError(f"--device {device}: PyTorch finds {there or 'no'} GPU on this machine; use --device cpu")
    return device


def check_numbers(config: Any) -> None:
    """Check that no number in a dataclass, or in those inside it, is NaN or infinite, and that seeds are seeds.

    Raises:
        UserError: If one is.
    """
    for name, value in list_flags(config):
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"--{name} must be a finite number, got {number}")
            if name.endswith("seed") and not 0 <= number <= MAX_SEED:
                raise UserError(f"--{name} must lie in 0 to {MAX_SEED}, got {number}")


def list_flags(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of every field of a dataclass and of those inside it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from list_flags(value)
        else:
            yield field.name, value
