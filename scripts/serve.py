"""Serve exported models, and finished runs, over HTTP, with a page to try them on.

python scripts/serve.py exports/sasrec --port 8000
python scripts/serve.py exports/sasrec runs/Baselines/demo/text-knn     # side by side
curl -X POST localhost:8000/recommend -H 'Content-Type: application/json' -d '{"history": ["D000003"], "k": 5}'
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.serving.options import ServiceOptions


@dataclass(frozen=True, slots=True)
class Config:
    """Serve models over HTTP."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of exports, or of finished runs, which PyTorch answers by; the first is the default."""
    port: int = 8000
    """Port; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    options: ServiceOptions = field(default_factory=ServiceOptions)

    def __post_init__(self) -> None:
        if not self.models:
            raise UserError("give the folder of an export (scripts/export.py) or of a finished run")
        if not 0 <= self.port < 65536:
            raise UserError(f"--port must be 0 to 65535, got {self.port}")


def main(config: Config) -> None:
    """Open the models and answer until stopped."""
    # Each thread of OpenMP's that waits spins, which costs the others more than it gives.
    os.environ.setdefault("OMP_NUM_THREADS", str(config.options.threads))
    from seqrec.serving.server import serve  # seconds, and not for --help

    options = config.options
    if options.api_key is None:
        options = replace(options, api_key=os.environ.get("SEQREC_API_KEY") or None)
    serve(list(config.models), config.host, config.port, options)


if __name__ == "__main__":
    run_command(main, Config)
