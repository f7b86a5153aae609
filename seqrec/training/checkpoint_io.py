"""How Lightning writes and reads checkpoint files: whole or not at all, tensors only."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from seqrec.basics.files import write_atomically
from seqrec.training.checkpoints import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and renames it: a kill leaves the old one or the new one, whole.

    Lightning writes into the system's temporary folder; moving from there may copy, which a kill can cut.
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
            if "dirpath" in state:  # where Lightning looks for the best weights: the run's folder may have moved
                state.update(_moved(state, Path(path).parent.resolve()))
        return checkpoint


def _moved(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a ModelCheckpoint's state with its paths in another folder."""

    def move(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    return {
        "dirpath": str(folder),
        "best_k_models": {move(path): score for path, score in state["best_k_models"].items()},
        **{name: move(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")},
    }
