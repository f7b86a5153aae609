"""Item vectors on disk, the only data that families exchange.

`embedding/<dataset>/<init_type>.npy` is float32 (N+1, D): row i is item i, row 0 is padding and zero. The `.json`
beside it says which items, which producer and which options. Shapes: N items, D width.
"""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.arrays import hash_arrays
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.names import check_name, list_families
from seqrec.basics.opening import read_array, read_json_object
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import Dataset

log = logging.getLogger(__name__)
NONE = "none"
_CHECKED_ROWS = 65_536
"""Rows checked at a time, so that a memory-mapped file stays on disk."""


@dataclass(frozen=True, slots=True)
class Producer:
    """What made the vectors; recorded beside them."""

    name: str
    """The command, such as `FAMILY/finetune.py`."""
    checkpoint_sha256: str | None
    """sha256 of the encoder's weights; None without a checkpoint."""
    options: dict[str, Any]
    """Other options that decide the values: backbone, lengths, pooling."""


def name_of(init_type: str) -> str:
    """Return the name of item vectors, given by name or as a file."""
    return Path(init_type).name.removesuffix(".npy")


def embedding_path(dataset: Dataset, init_type: str, folder: Path = ROOT / "embedding") -> Path:
    """Return where the vectors of that type lie for a dataset.

    Raises:
        UserError: If the type is no name.
    """
    check_name("--init_type", init_type)
    return folder / dataset.name / f"{init_type}.npy"


def save_embeddings(path: Path, vectors: NDArray[np.float32], dataset: Dataset, producer: Producer) -> None:
    """Write (N+1, D) item vectors and their manifest, each by a temporary name and a rename.

    Raises:
        UserError: If the vectors do not fit the dataset or are not finite.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    _check_vectors(vectors, dataset, "the array to be saved")
    manifest = {
        "item_ids_sha256": dataset.item_ids_sha256,
        "vectors_sha256": vectors_sha256(vectors),
        "num_items": dataset.num_items,
        "width": vectors.shape[1],
        "producer": producer.name,
        "checkpoint_sha256": producer.checkpoint_sha256,
        "options": producer.options,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # The manifest goes last: vectors without one are accepted with a warning, a manifest of other vectors is refused.
    path.with_suffix(".json").unlink(missing_ok=True)
    with write_atomically(path) as file:
        np.save(file, vectors, allow_pickle=False)
    with write_atomically(path.with_suffix(".json")) as file:
        file.write((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())


def find_differences(path: Path, dataset: Dataset, producer: Producer) -> list[str] | None:
    """Return how the vectors at a path differ from a producer's; None if there are none.

    Args:
        path: Of a `.npy`.
        dataset: Whose items the producer encodes.
        producer: Weights and options; its `checkpoint_sha256` is not compared where it is None, since not yet known.
    """
    if not path.exists():
        return None
    file = path.with_suffix(".json")
    if not file.is_file():
        return [f"there is no {file.name} that says what made them"]
    there = read_json_object(file, f"delete {file.name} and make the vectors again with --overwrite")
    options = there.get("options")
    wanted = {"items": dataset.item_ids_sha256, "weights": producer.checkpoint_sha256} | producer.options
    made = {"items": there.get("item_ids_sha256"), "weights": there.get("checkpoint_sha256")}
    made |= options if isinstance(options, dict) else {}
    if producer.checkpoint_sha256 is None:
        del wanted["weights"], made["weights"]
    wanted = json.loads(json.dumps(wanted))
    different = [
        f"{name} was {made.get(name)} and is {wanted.get(name)}"
        for name in sorted(made.keys() | wanted.keys())
        if made.get(name) != wanted.get(name)
    ]
    if not different and there.get("vectors_sha256") != vectors_sha256(_read_vectors(path)):
        different = [f"they are not those that {file.name} is of"]
    return different


def needs_saving(path: Path, dataset: Dataset, producer: Producer, overwrite: bool) -> bool:
    """Return whether a producer's vectors still have to be written; see `find_differences`.

    Raises:
        UserError: If other vectors lie there, and are not to be overwritten.
    """
    different = find_differences(path, dataset, producer)
    if different and not overwrite:
        raise UserError(
            f"{path} holds other item vectors ({'; '.join(different)}): keep them by another --embedding_dir, or add "
            "--overwrite to replace them"
        )
    return different is None or bool(different)


def load_embeddings(init_type: str, dataset: Dataset, folder: Path = ROOT / "embedding") -> NDArray[np.float32]:
    """Return (N+1, D) item vectors for a dataset, checked against its items.

    Args:
        init_type: A name, meaning <folder>/<dataset>/<name>.npy, or the path of a file: `.npy`, or the extensionless
            torch file `item_embeddings_<dataset>` of the published code.
        dataset: Whose items the rows must be.
        folder: Where the embedding files lie.

    Raises:
        MissingFileError: If there is no such file, with those that there are.
        UserError: If the file does not fit the dataset.
    """
    path = find_embeddings(init_type, dataset, folder)
    vectors = _read_vectors(path)
    _check_vectors(vectors, dataset, str(path))
    manifest_file = path.with_suffix(".json")
    if path.suffix == ".npy" and manifest_file.is_file():
        repair = f"export the vectors again, or delete {manifest_file.name} to take them on trust"
        _check_manifest(read_json_object(manifest_file, repair), vectors, dataset, path)
    else:
        log.warning("%s has no .json beside it: assuming that row i is item i of %s", path, dataset.name)
    return vectors


def advise_export(dataset: str) -> str:
    """Return the sentence that says how item vectors of a dataset are made."""
    commands = [f"`python {family}/encode.py --dataset {dataset}`" for family in list_families(ROOT, "encode")]
    return f"Make them with {' or '.join(commands) or 'a text encoder'}"


def find_embeddings(init_type: str, dataset: Dataset, folder: Path = ROOT / "embedding") -> Path:
    """Return the file of item vectors, see `load_embeddings`."""
    given = Path(init_type)
    if given.name != init_type:
        if not given.is_file():
            raise MissingFileError(f"there is no file of item vectors {given}: --init_type takes one, or a name")
        return given
    own = embedding_path(dataset, init_type, folder)
    for path in (own, own.with_suffix("") / f"item_embeddings_{dataset.name}", given):
        if path.is_file():
            return path
    known = sorted(p.stem for p in (folder / dataset.name).glob("*.npy"))
    raise MissingFileError(
        f"no item vectors {init_type!r} for {dataset.name}: {own} does not exist "
        f"(there: {known or 'nothing'}). {advise_export(dataset.name)}, "
        f"or start from random vectors with --init_type {NONE}"
    )


def _read_vectors(path: Path) -> NDArray[np.float32]:
    """Return the array of a `.npy` or a torch file; neither can run code."""
    repair = "export it again"
    array: Any = read_array(path, repair) if path.suffix == ".npy" else _read_tensor(path, repair)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        held = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise UserError(f"{path} holds {held}, expected one float array of shape (items + 1, width); export it again")
    return np.ascontiguousarray(array, dtype=np.float32)


def _read_tensor(path: Path, repair: str) -> Any:
    """Return what a torch file holds, a tensor as a float32 array."""
    import torch  # takes a second, and vectors are .npy files mostly

    from seqrec.basics.tensors import check_plain, read_torch

    found = read_torch(path, repair)
    if not isinstance(found, torch.Tensor):
        return found
    check_plain(found, str(path), repair)
    return found.detach().float().numpy()


def _check_vectors(vectors: NDArray[np.float32], dataset: Dataset, name: str) -> None:
    expected = dataset.num_items + 1
    if vectors.ndim != 2 or len(vectors) != expected or not vectors.shape[1]:
        hint = ""
        if vectors.ndim == 2 and len(vectors) == dataset.num_items:
            hint = " (row 0 must be padding: prepend a row of zeros)"
        raise UserError(
            f"{name} has shape {vectors.shape}, but {dataset.name} has {dataset.num_items} items and needs "
            f"({expected}, width){hint}; export the vectors again for this dataset"
        )
    blocks = np.split(vectors, range(_CHECKED_ROWS, len(vectors), _CHECKED_ROWS))
    bad = np.flatnonzero(np.concatenate([~np.isfinite(block).all(axis=1) for block in blocks]))
    if len(bad):
        raise UserError(f"{name} is not finite in {len(bad)} rows, the first is item {bad[0]}; export it again")
    if vectors[0].any():
        raise UserError(f"{name} has a row 0 that is not zero; row 0 is padding, row i is item i")


def _check_manifest(manifest: dict[str, Any], vectors: NDArray[np.float32], dataset: Dataset, path: Path) -> None:
    again = f"; export the vectors again, or delete {path.with_suffix('.json').name} to take them on trust"
    if manifest.get("item_ids_sha256") != dataset.item_ids_sha256:
        raise UserError(
            f"{path} was made for other items (sha256 {str(manifest.get('item_ids_sha256'))[:12]}) than {dataset.path} "
            f"has ({dataset.item_ids_sha256[:12]}): the dataset was prepared again since{again}"
        )
    if manifest.get("width") != vectors.shape[1]:
        raise UserError(f"{path} is {vectors.shape[1]} wide, its manifest says {manifest.get('width')}{again}")
    if manifest.get("vectors_sha256") != vectors_sha256(vectors):
        raise UserError(f"{path} is not the file that its manifest describes (sha256 differs){again}")


def vectors_sha256(vectors: NDArray[np.float32]) -> str:
    """Return the sha256 of (N+1, D) item vectors in C order, as a `.json` and a run keep it."""
    return hash_arrays(vectors)
