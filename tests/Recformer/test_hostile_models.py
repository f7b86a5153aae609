"""Generated models and checkpoints: each is refused in a sentence or read as it is; see `tests/hostile`."""

from pathlib import Path

import pytest

from tests.hostile.trial import report
from tests.Recformer import hostile_models


def test_no_file_of_a_model_breaks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    full = request.config.getoption("--full")
    report("tests.Recformer.hostile_models", list(hostile_models.KINDS), full, tmp_path)
