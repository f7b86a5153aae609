"""Checkpoint files: written whole, read as tensors only."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.opening import read_torch
from seqrec.training.sharding import consolidate, find_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill leaves the old one or the new one, never a part.

    Lightning itself writes into the system's folder for temporary files, from which a move may be a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save a checkpoint under its final name."""
        with write_atomically(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return a checkpoint of this kind, tensors and plain values only.

        Raises:
            UserError: If it is none.
        """
        checkpoint = read_checkpoint(Path(path))
        for state in checkpoint.get("callbacks", {}).values():
            if "dirpath" in state:  # where Lightning looks for the best weights so far: the run's folder may have moved
                state.update(_moved(state, Path(path).parent.resolve()))
        return checkpoint


def _moved(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a ModelCheckpoint remembers of its files, as they lie in another folder."""

    def move(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    return {
        "dirpath": str(folder),
        "best_k_models": {move(path): score for path, score in state["best_k_models"].items()},
        **{name: move(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")},
    }


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, reading tensors only.

    Raises:
        MissingFileError: If there is none.
        UserError: If the file is damaged, or no checkpoint.
    """
    found = find_checkpoint(path)
    if found is None:
        raise MissingFileError(f"{path} does not exist: the run has not validated an epoch yet; run it with --resume")
    if found.is_dir():
        return consolidate(found)
    state: dict[str, Tensor] = read_checkpoint(found)["state_dict"]
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint file holds: the weights as `state_dict`, and perhaps more.

    Raises:
        UserError: If the file is damaged, or no checkpoint.
    """
    repair = "the file is damaged or no checkpoint of this project; --overwrite the run to begin it anew"
    found = read_torch(path, repair)
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds no state_dict of tensors: {repair}")
    return found  # type: ignore[no-any-return]
