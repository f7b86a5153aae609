"""The serving benchmark: its ways give one vector, and its counts are the published formula."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from PerSRec.data import make_inputs
from PerSRec.options import HistoryOptions
from scripts.benchmarks.persrec import USERS, Config, answer, count, formula, main, make_module, make_sides

SMALL = Config(old=12, recent=4, tokens=2, hidden_units=8, n_layers=3, n_heads=2, num_items=50)


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ((64, 1, 1280, 1280), 471.9),
        ((64, 1, 256, 260), 27.53),
        ((64, 1, 500, 500), 84.5),
        ((64, 1, 100, 104), 6.76),
        ((512, 1, 1280, 1280), 6711),
        ((512, 1, 256, 260), 807),
    ],
)
def test_the_formula_gives_the_published_table(sizes: tuple[int, int, int, int], millions: float) -> None:
    assert formula(*sizes) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_operations_are_those_of_the_formula() -> None:
    module = make_module(SMALL, HistoryOptions(maxlen=16))
    histories = make_sides(SMALL)["whole history"].history
    inputs = make_inputs(histories, np.arange(3), module.config.history.window)
    vectors = module.embed(inputs.items).detach()
    assert count(lambda: module.encoder(vectors, inputs.rows)) == 3 * formula(8, 3, 16, 16)
    served, histories = make_sides(SMALL)["from the memory"]
    recalled = served.make_inputs(histories, np.arange(3)).recalled  # type: ignore[union-attr]
    assert recalled is not None
    vectors = served.embed(recalled.items).detach()
    found = count(lambda: served.encoder(vectors, recalled.rows, memory=recalled.kept))
    assert found == 3 * formula(8, 3, 4, 6)


@pytest.mark.parametrize("model", ["hstu", "sasrec", "llama"])
def test_the_memory_answers_as_whole_histories_do(model: str) -> None:
    config = Config(old=12, recent=4, tokens=2, hidden_units=8, n_layers=3, n_heads=2, num_items=50, model=model)  # type: ignore[arg-type]
    sides = make_sides(config)
    rows = np.array([3, 200, USERS - 1])
    found = []
    for name in ("whole history, with tokens", "from the memory"):
        module, history = sides[name]
        found.append(module.user_vectors(module.make_inputs(history, rows)).detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)
    memory = sides["from the memory"].module.memory
    assert memory is not None and (memory.num_recalled, memory.num_whole) == (3, 0)
    assert count(partial(answer, sides["from the memory"], rows)) < count(partial(answer, sides["whole history"], rows))


def test_it_prints_and_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        Config(
            old=12, recent=4, hidden_units=8, n_heads=2, num_items=50, batches=(1, 2), repeats=2, output_dir=tmp_path
        )
    )
    said = capsys.readouterr().out
    assert "2 at a time" in said and "4 x 2 x 4 x 8 numbers, 1.0 KiB as float32" in said
    assert (tmp_path / "serving-hstu.json").is_file()
