"""Arrays that are computed once, part by part, and memory-mapped from then on.

The folder is named by a hash of everything that decides the arrays, so a cache can't be out of date. A kill costs the
part that was being made.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.files import exclusive, write_atomically
from seqrec.basics.progress import progress

Arrays = dict[str, NDArray[Any]]


class CachedArrays:
    """Arrays by name, each the concatenation of its parts along the first axis."""

    def __init__(self, root: Path, key: Mapping[str, Any], num_parts: int) -> None:
        """Name the cache.

        Args:
            root: Folder of the caches.
            key: Everything that decides the arrays, as JSON can hold it.
            num_parts: At least 1.
        """
        self.name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        self.root, self.num_parts = root, num_parts
        self.folder, self.parts = root / self.name, root / f".{self.name}-{num_parts}.parts"

    def make(self, make_part: Callable[[int], Arrays], description: str, first: int = 0, step: int = 1) -> None:
        """Make every `step`-th part from `first` on, unless it is there.

        Args:
            make_part: Returns the arrays of part 0, 1, ...; all parts have the same names, dtypes and further axes.
            description: Text of the progress bar.
            first: First part of this process, when several processes split the work.
            step: Number of processes.
        """
        if self.folder.is_dir():
            return
        for part in progress(range(first, self.num_parts, step), desc=description, unit="part"):
            path = self.parts / f"{part}.npz"
            if not path.is_file():
                with write_atomically(path) as file:
                    np.savez(file, allow_pickle=False, **make_part(part))

    def load(self, make_part: Callable[[int], Arrays], description: str) -> Arrays:
        """Return the arrays; make them first if they are missing. Other processes wait meanwhile."""
        with self.lock():
            self.make(make_part, description)
            return self.join()

    def lock(self) -> AbstractContextManager[None]:
        """Lock a block against other processes; when several split the work, the first one takes the lock for all."""
        return exclusive(self.root / f".{self.name}.lock", f"waiting for another process that makes {self.folder}")

    def join(self) -> Arrays:
        """Return the arrays, memory-mapped, once all parts are made. One process at a time may call it."""
        if not self.folder.is_dir():
            whole = self.root / f".{self.name}.whole"
            shutil.rmtree(whole, ignore_errors=True)
            whole.mkdir()
            _concatenate([self.parts / f"{part}.npz" for part in range(self.num_parts)], whole)
            whole.rename(self.folder)
            shutil.rmtree(self.parts)
        return open_arrays(self.folder)

    def remove(self) -> None:
        """Delete the arrays."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_arrays(folder: Path) -> Arrays:
    """Return the arrays of a cache's folder, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}


def _concatenate(parts: list[Path], folder: Path) -> None:
    """Write <name>.npy for every array of the parts, holding one part in memory at a time."""
    with np.load(parts[0], allow_pickle=False) as first:
        names = first.files
    for name in names:
        shapes = []
        for path in parts:
            with np.load(path, allow_pickle=False) as part:
                shapes.append(part[name].shape)
                dtype = part[name].dtype
        total = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        # Written, not mapped: on a full disk a write is an error, where a mapped page ends the program.
        with write_atomically(folder / f"{name}.npy") as out:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": total}
            np.lib.format.write_array_header_1_0(out, header)
            for path in parts:
                with np.load(path, allow_pickle=False) as part:
                    out.write(np.ascontiguousarray(part[name]).data)
