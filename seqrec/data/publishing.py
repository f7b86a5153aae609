"""Moving a finished dataset to its place, whole or not at all."""

import json
import logging
from filecmp import cmp
from pathlib import Path

from seqrec.basics.errors import UserError
from seqrec.basics.files import replace_folder

log = logging.getLogger(__name__)


def publish(folder: Path, target: Path, overwrite: bool) -> Path:
    """Move a finished folder to its place, on the same file system, and return the place.

    Raises:
        UserError: If the place holds another dataset and overwrite is not set, or something else than a dataset.
    """
    if not target.exists() and not target.is_symlink():
        folder.rename(target)
        return target
    differing = _differences(folder, target)
    if not differing:
        log.info("%s is there already, byte for byte the same", target)
        return target
    if target.is_symlink() or not _is_dataset(target):
        raise UserError(f"{target} is no folder of a prepared dataset and is left alone: give another --name")
    if not overwrite:
        raise UserError(
            f"{target} exists and differs in {', '.join(differing)}: add --overwrite to replace it, or another --name"
        )
    replace_folder(folder, target)
    return target


def _is_dataset(folder: Path) -> bool:
    """Return whether `prepare` of any version wrote the folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"format", "num_items", "item_ids_sha256", "source"} <= manifest.keys()


def _differences(left: Path, right: Path) -> list[str]:
    found = {(root, path) for root in (left, right) for path in root.rglob("*") if path.is_file()}
    # What begins with a dot is what a reader noted of a dataset inside this one.
    names = {path.relative_to(root).as_posix() for root, path in found if not path.name.startswith(".")}
    return sorted(
        name
        for name in names
        if not ((left / name).is_file() and (right / name).is_file() and cmp(left / name, right / name, shallow=False))
    )
