"""Generated inputs, whole and damaged: each is refused in a sentence or becomes what its rows say.

Every source of `prepare.py` and every kind of file that is opened is tried with inputs that hypothesis makes, the same
ones in each run, in a process of its own, so that one which ends the process is found too. What is accepted is compared
with a naive reading of the same rows. `pytest tests/hostile tests/Recformer/test_hostile_models.py --full -s` tries
five times as many and prints the counts.
"""

from pathlib import Path

import pytest

from tests.hostile import files, preparing
from tests.hostile.trial import report


def test_no_source_breaks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report("tests.hostile.preparing", list(preparing.KINDS), request.config.getoption("--full"), tmp_path)


def test_no_file_of_a_dataset_or_a_run_breaks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report("tests.hostile.files", list(files.KINDS), request.config.getoption("--full"), tmp_path)
