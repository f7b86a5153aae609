"""Where the project lies, and where it keeps what can be made again."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def user_cache() -> Path:
    """Return the user's folder for things that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqrec"
