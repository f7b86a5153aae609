"""Names of datasets, runs, item vectors and families: each is one folder or file, and never a path."""

from pathlib import Path

from seqrec.basics.errors import UserError

LONGEST = 200
"""Bytes in UTF-8; file systems allow 255 with prefix and suffix."""


def check_name(flag: str, value: str) -> str:
    """Return the name if a file or folder can have it.

    Args:
        flag: Its flag, for the message, for example `--run_name`.
        value: The name.

    Raises:
        UserError: If it is empty, too long, a path, hidden, or holds a control character.
    """
    if not value or value.startswith(".") or "/" in value or not value.isprintable():
        raise UserError(
            f"{flag} must be a plain name such as my-data, without a slash and not beginning with a dot, got {value!r}"
        )
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST:
        raise UserError(
            f"{flag} must be at most {LONGEST} bytes long, got {len(value):,} characters: {value[:40]!r}..."
        )
    return value


def list_families(root: Path, verb: str = "finetune") -> list[str]:
    """Return the families that have a command, sorted: the folders with `<verb>.py`."""
    return sorted(path.parent.name for path in root.glob(f"*/{verb}.py") if path.parent.name.isidentifier())


def check_family(said: str, value: object, root: Path) -> str:
    """Return the name of a family, checked to be one of the project's own folders: its `finetune.py` will be run.

    Args:
        said: Where the name comes from, for the message.
        value: The name.
        root: Folder of the project.

    Raises:
        UserError: If it is none of them.
    """
    known = list_families(root)
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{said} must be one of {', '.join(known)}, got {value!r}")
    return value
