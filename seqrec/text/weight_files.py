"""The weights of a Hugging Face folder, read tensor by tensor."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.text.weights import list_shards, load_folder

WHOLE = "model.safetensors"
_OLD_NAMES = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))
"""Names in old checkpoints of BERT, and today's."""


class WeightFiles:
    """The tensors of a folder by name, without the name of a model around them, such as `bert.`.

    One file is open at a time, so that no more than its tensors that are asked for are in memory.
    """

    def __init__(self, folder: Path, prefixes: Iterable[str]) -> None:
        """Find the tensors.

        Args:
            folder: With safetensors, or older files that are read as a whole.
            prefixes: Names of models around the one that is wanted, each with a dot.

        Raises:
            MissingFileError: If the folder has no weights.
            UserError: If a file is damaged.
        """
        self.folder = folder
        self._read: dict[str, Tensor] = {}
        self._place: dict[str, tuple[Path, str]] = {}
        self.files = self._find_files()
        strip = tuple(prefixes)
        for file in self.files:
            for stored in self._names(file):
                name = stored
                for prefix in strip:
                    name = name.removeprefix(prefix)
                for old, new in _OLD_NAMES:
                    name = name.replace(old, new)
                self._place[name] = (file, stored)

    def _find_files(self) -> list[Path]:
        if (self.folder / WHOLE).is_file():
            return [self.folder / WHOLE]
        index = self.folder / f"{WHOLE}.index.json"
        if index.is_file():
            return [self.folder / shard for shard in list_shards(index)]
        self._read = load_folder(self.folder)
        return sorted(path for path in self.folder.glob("pytorch_model*.bin") if path.is_file())

    def _names(self, file: Path) -> list[str]:
        if self._read:
            return list(self._read) if file == self.files[0] else []
        try:
            with safe_open(file, framework="pt") as opened:
                return list(opened.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} can't be read ({error}): download the model again") from error

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def read(self, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return tensors by name, floating ones as `dtype`.

        Raises:
            UserError: If one is missing.
        """
        wanted = list(names)
        if missing := [name for name in wanted if name not in self]:
            raise UserError(f"{self.folder}: its weights lack {len(missing)}: {', '.join(missing[:6])}")
        found: dict[str, Tensor] = {}
        for file in self.files:
            here = [name for name in wanted if self._place[name][0] == file]
            if self._read:
                found |= {name: _cast(self._read[self._place[name][1]], dtype) for name in here}
            elif here:
                with safe_open(file, framework="pt") as opened:
                    found |= {name: _cast(opened.get_tensor(self._place[name][1]), dtype) for name in here}
        return found

    def sha256(self) -> str:
        """Return a hash of the files' content."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        digest.update(json.dumps([file.name for file in self.files]).encode())
        return digest.hexdigest()


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A copy, also where the type is the same: otherwise the file stays mapped, and the tensor read-only.
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()
