"""The service as a process of its own: for measurements, pictures and tests."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT

SCRIPT = ROOT / "scripts/serve.py"


@contextmanager
def running_service(*words: str | Path, script: Path = SCRIPT) -> Iterator[tuple[Popen[str], str]]:
    """Start the service without a key on a free port, give its process and address, and stop it at the end.

    Args:
        words: Folders and flags of `scripts/serve.py`.
        script: That file, perhaps of another copy of the project.

    Raises:
        UserError: If it does not start.
    """
    environment = os.environ | {"SEQREC_API_KEY": "", "PYTHONPATH": str(script.parents[1])}
    command = [str(word) for word in (sys.executable, script, *words, "--port", "0")]
    process = Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = ""
        while (address := re.search(r"http://127\.0\.0\.1:\d+", said)) is None:
            line = process.stderr.readline()
            if not line:
                raise UserError(f"the service did not start: {said}")
            said += line
        yield process, address[0]
    finally:
        process.terminate()
        process.wait(20)
