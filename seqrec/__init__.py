"""The instruments that every family is measured and run with; knows no model by name.

`results`, `ranks` and `recommendations` return pandas DataFrames; they are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

from seqrec.basics.version import __version__

if TYPE_CHECKING:
    from seqrec.frames import ranks, recommendations, results

__all__ = ["__version__", "ranks", "recommendations", "results"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seqrec import frames

    return getattr(frames, name)
