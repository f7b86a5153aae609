"""Checks of flags, with messages that name the flag."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from seqrec.errors import UserError


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


def require_finite(config: Any) -> None:
    """Check that no number in a dataclass, or in those inside it, is NaN or infinite.

    Raises:
        UserError: If one is.
    """
    for name, value in list_flags(config):
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"--{name} must be a finite number, got {number}")


def list_flags(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of every field of a dataclass and of those inside it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from list_flags(value)
        else:
            yield field.name, value
