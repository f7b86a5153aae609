"""The benchmark of growing sizes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.benchmarks import growth_sasrec as growth
from scripts.benchmarks.growth_sasrec import Config, Cost, Curve, main


def test_a_slope_is_the_power_at_the_end() -> None:
    square = Curve("work", (10, 100, 1000), [Cost(seconds, 10) for seconds in (5.0, 1.0, 100.0)])
    assert square.slope("seconds") == pytest.approx(2)
    assert square.slope("memory") == 0


def test_one_size_is_refused() -> None:
    with pytest.raises(ValueError, match="--widths must be two sizes or more"):
        Config(widths=(32,))


def test_every_point_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, where libraries are loaded already.
    monkeypatch.setattr(growth, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    main(Config(items=(50, 100), widths=(8, 16), events=(200, 400), repeats=1, output_dir=tmp_path))
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "growth.json").read_text())
    assert {title: {work: list(costs) for work, costs in curves.items()} for title, curves in found.items()} == {
        "items": {"ranking 128 users": ["50", "100"], "a training step": ["50", "100"]},
        "width": {"ranking 128 users": ["8", "16"], "a training step": ["8", "16"]},
        "events": {"preparing": ["200", "400"]},
    }
    steps = found["items"]["a training step"].values()
    assert all(step["seconds"] > 0 for step in steps)
