"""Weights that come as packages: found without importing the package, and checked."""

import hashlib
import importlib.util
from pathlib import Path

from seqrec.basics.errors import UserError


def package_folder(package: str) -> Path | None:
    """Return a package's folder, found without importing it; None where it is absent."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def check_sha256(path: Path, expected: str, package: str) -> None:
    """Raise UserError unless a file of a PyPI package has the expected hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{path} has sha256 {found}, expected {expected}: install it again with "
            f"`pip install --force-reinstall --no-deps {package}`"
        )
