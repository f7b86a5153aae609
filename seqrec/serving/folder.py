"""The folder of an exported model: which files it has, and that they belong together.

`manifest.json` holds the sha256 of every other file, so that parts of two exports are never mixed.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import exclusive, hash_file, put_back, replace_folder, write_json
from seqrec.basics.opening import read_json_object

FORMAT = 3
MANIFEST = "manifest.json"
ITEM_VECTORS, EVENT_VECTORS, ITEMS = "item_vectors.npy", "event_vectors.npy", "items.parquet"
TOGETHER = "together.npy"
FORMS = ("fp32", "fp16", "int8")
"""How numbers are kept in the user encoder and in the index."""
REPAIR = "export the run again with `scripts/export.py`"
_FIELDS: dict[str, Any] = {
    "kind": str,
    "name": str,
    "num_items": int,
    "width": int,
    "event_width": int,
    "events_apart": bool,
    "most_events": int,
    "repeat_score": float,
    "attributes": list,
    "measured": dict,
    "forms": list,
    "files": dict,
    "run": dict,
}


def graph_file(form: str) -> str:
    """Return the name of the user encoder's file in a form."""
    return f"user_encoder.{form}.onnx"


def index_file(form: str) -> str:
    """Return the name of the index's file in a form."""
    return f"index.{form}.faiss"


def write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    """Write the manifest of a folder's files."""
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    write_json(folder / MANIFEST, {"format": FORMAT, "kind": "seqrec export", **fields, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an export whose files all are the ones it was written with.

    Raises:
        MissingFileError: If the folder is no export, or one of its files is missing.
        UserError: If the manifest is incomplete, or a file is another one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFileError(f"{folder} is no export ({MANIFEST} is missing): make one with `scripts/export.py RUN`")
    manifest = read_json_object(path, REPAIR, _FIELDS)
    if manifest["kind"] != "seqrec export" or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is no export of format {FORMAT}: {REPAIR}")
    for name, expected in manifest["files"].items():
        file = folder / name
        if name != Path(name).name or not file.is_file():
            raise MissingFileError(f"{file} does not exist: {REPAIR}")
        if hash_file(file) != expected:
            raise UserError(f"{file} is not the file that this export was written with: {REPAIR}")
    return manifest


def _is_export(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == "seqrec export"


@contextmanager
def replace_export(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    Raises:
        UserError: If there is something else than an export, or an export and `overwrite` is not set.
    """
    with exclusive(target.with_name(f".{target.name}.lock"), f"waiting for another process that writes {target}"):
        put_back(target)
        if target.exists() or target.is_symlink():
            if target.is_symlink() or not _is_export(target):
                raise UserError(f"--output {target} is there and is no export: it is left alone, give another folder")
            if not overwrite:
                raise UserError(f"--output {target} holds an export: add --overwrite to replace it")
        new = target.with_name(f".{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
        new.mkdir()
        try:
            yield new
            replace_folder(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)
