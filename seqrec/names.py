"""Names of datasets, runs and item vectors: each is one folder or file, and never a path."""

from seqrec.errors import UserError

LONGEST = 200
"""Bytes of UTF-8: file systems take 255 with what is put before and after a name."""


def check_name(flag: str, value: str) -> str:
    """Return the name given, if a file or folder can have it.

    Args:
        flag: Where the name was given, for the message, for example `--run_name`.
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
