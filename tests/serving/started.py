"""The service as a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.forked import ROOT


def start(*words: str | Path, script: Path = ROOT / "scripts/serve.py") -> tuple["subprocess.Popen[str]", str]:
    """Start the command on a free port; return the process and its address."""
    command = [sys.executable, script, *words, "--port", "0"]
    environment = os.environ | {"SEQREC_API_KEY": "", "PYTHONPATH": str(script.parents[1])}
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    said = ""
    while (found := re.search(r"http://127\.0\.0\.1:\d+", said)) is None:
        line = process.stderr.readline()
        assert line, said
        said += line
    return process, found[0]
