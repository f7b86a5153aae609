"""The flags of export and service."""

from dataclasses import dataclass
from typing import Literal

from seqrec.basics.checks import require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.serving.folder import FORMS


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export has."""

    forms: tuple[str, ...] = FORMS
    """How numbers of the user encoder and of the index are kept: fp32, fp16, int8; several for a choice."""
    least_recall: float = 0.99
    """Share of the ten best items that a search of the index should find."""
    users: int = 2_000
    """Users whose searches decide the index's effort, and others whose recommendations are compared."""

    def __post_init__(self) -> None:
        if not self.forms or not set(self.forms) <= set(FORMS) or len(set(self.forms)) < len(self.forms):
            raise UserError(f"--forms are some of {', '.join(FORMS)}, each once, got {' '.join(self.forms)}")
        require_at_least(2, self, "users")
        require_at_least(0, self, "least_recall")
        require_at_most(1, self, "least_recall")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How models are served."""

    form: str | None = None
    """Form of the exports: fp32, fp16 or int8; by default the first that each has."""
    search: Literal["auto", "index", "all"] = "auto"
    """How items are found: by the index, by scoring all, or auto: all of a small catalogue."""
    threads: int = 1
    """Threads of an exported model."""
    max_batch: int = 64
    """Greatest number of requests that a model answers together."""
    max_waiting: int = 256
    """Greatest number of requests that wait for a model; more are answered by 503."""
    max_bytes: int = 1_000_000
    """Greatest size of a request's body."""
    api_key: str | None = None
    """Key that requests must have as X-API-Key."""

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in FORMS:
            raise UserError(f"--form is one of {', '.join(FORMS)}, got {self.form}")
        require_at_least(1, self, "threads", "max_batch", "max_waiting", "max_bytes")
