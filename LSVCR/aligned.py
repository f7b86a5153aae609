"""The file that a finished alignment leaves."""

from pathlib import Path

from torch import Tensor

from seqrec.basics.errors import MissingFileError
from seqrec.basics.tensors import read_tensors

ALIGNED = "aligned.safetensors"
"""All that was learned: the recommender, the map of texts, and what was learned of the language model."""


def read_learned(run: Path) -> dict[str, Tensor]:
    """Return what a finished alignment has learned.

    Raises:
        MissingFileError: If the folder holds none.
    """
    file = run / ALIGNED
    if not file.is_file():
        raise MissingFileError(f"{run} holds no finished run of align.py: {ALIGNED} is missing")
    return read_tensors(file)
