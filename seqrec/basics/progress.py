"""Progress bars, which one switch turns off."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

_shown = [True]


def show_progress(shown: bool) -> None:
    """Show progress bars from now on in this process, or none."""
    _shown[0] = shown


def shows_progress(output: TextIO | None = None) -> bool:
    """Return whether a progress bar may go to an output, by default standard output: only to a terminal."""
    return _shown[0] and (output or sys.stdout).isatty()


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm bar; it shows nothing unless bars are on and the output is a terminal.

    Args:
        iterable: Iterated over.
        **options: Of tqdm.
    """
    return tqdm(iterable, disable=None if _shown[0] else True, **{"leave": False, "delay": 2} | options)
