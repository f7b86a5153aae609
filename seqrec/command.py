"""How every command starts: flags from a dataclass, log lines on the terminal, errors without a traceback."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from lightning_fabric.utilities.exceptions import MisconfigurationException

from seqrec.checks import list_flags, require_finite
from seqrec.errors import UserError
from seqrec.progress import show_progress


def run_command(main: Callable[[Any], object], config: Any, words: Sequence[str] | None = None) -> None:
    """Read the flags of a (nested) dataclass, or of a union of them as subcommands, flat, and run a command.

    They are read from `words`, by default those of the command line.

    Input that the command refuses ends it with its message and status 1; SEQREC_TRACEBACK=1 shows where it arose.
    """
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")  # titles hold what an ASCII terminal lacks
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    lightning = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
    for noisy in ("httpx", "fsspec", "urllib3", "matplotlib", *lightning):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Lightning's advice that is moot here: how often it logs steps, its own use of torch, and that --resume resumes.
    for moot in ("log_every_n_steps", "LeafSpec", "exists and is not empty", "does not have many workers"):
        warnings.filterwarnings("ignore", f".*{moot}.*")
    torch.set_float32_matmul_precision("high")
    try:
        given = tyro.cli(config, args=words, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
        require_finite(given)
        show_progress(dict(list_flags(given)).get("progress_bar", True))
        main(given)
    except (UserError, OSError, MisconfigurationException) as error:
        if os.environ.get("SEQREC_TRACEBACK"):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
