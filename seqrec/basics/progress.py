"""Progress bars, which one switch turns off."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_shown = [True]


def show_progress(shown: bool) -> None:
    """Show progress bars from now on in this process, or none."""
    _shown[0] = shown


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm bar on a terminal, and anywhere else, or where bars are turned off, one that shows nothing.

    Args:
        iterable: What is gone through.
        **options: Of tqdm.
    """
    return tqdm(iterable, disable=None if _shown[0] else True, **{"leave": False, "delay": 2} | options)
