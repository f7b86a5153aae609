"""SASRec whose attention depends on the time between events."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SASRec.data import TrainDataset, make_inputs
from SASRec.finetune import main
from SASRec.model import SASRec, SASRecConfig
from SASRec.options import Config
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.splits import leave_one_out
from seqrec.nn.blocks import CausalBlock
from seqrec.nn.losses import LossOptions
from seqrec.nn.ragged import make_layout
from seqrec.nn.rotation import turn_by_time
from seqrec.training.options import TrainingConfig
from tests.conftest import write_dataset
from tests.interrupted import Command
from tests.recommending import assert_recommends_as_it_was_tested

DAY = 86400


def timed_histories(times: list[list[int]]) -> Histories:
    offsets = np.cumsum([0, *map(len, times)])
    items = np.random.default_rng(0).integers(1, 31, offsets[-1]).astype(np.int32)
    return Histories(items, np.arange(len(times)), offsets[:-1], offsets[1:], np.concatenate(times).astype(np.int64))


def predict(model: SASRec, times: list[list[int]], timed: bool = True) -> torch.Tensor:
    histories = timed_histories(times)
    inputs = make_inputs(histories, np.arange(len(histories)), 8, timed)
    out: torch.Tensor = model(inputs.items, inputs.positions, inputs.layout, inputs.last, seconds=inputs.seconds)
    return out[inputs.order]


@pytest.fixture(params=["sasrec", "ligr"])
def model(request: pytest.FixtureRequest) -> SASRec:
    torch.manual_seed(0)
    config = SASRecConfig(hidden_units=12, num_heads=2, maxlen=8, block=request.param, relative_time=True)
    return SASRec(30, config).eval().requires_grad_(False)


def test_time_between_events_matters_and_nothing_else_of_time(model: SASRec) -> None:
    times = [[0, 5 * DAY, 6 * DAY, 400 * DAY], [7, 3000], [50], list(range(0, 120 * DAY, 10 * DAY))]
    found = predict(model, times)
    torch.testing.assert_close(predict(model, [[t + 9 * DAY for t in row] for row in times]), found, atol=1e-4, rtol=0)
    at_once = [[3] * len(row) for row in times]
    torch.testing.assert_close(predict(model, at_once), predict(model, times, timed=False))
    moved = (found - predict(model, at_once)).abs().amax(dim=1)
    assert (moved[[0, 1, 3]] > 1e-3).all()
    assert moved[2] == 0  # one event alone has no time to any other


def test_attention_is_that_of_the_equation() -> None:
    torch.manual_seed(0)
    block, x = CausalBlock(8, 2, 0.0).eval().requires_grad_(False), torch.randn(5, 8)
    seconds = torch.tensor([0, 40, 90000, 10**6, 10**8])
    turn = turn_by_time(seconds, 4)
    found = block.attention(x, x, make_layout(np.array([5])), None, causal=True, turns=(turn, turn))
    query, (key, value) = block.query(x), block.key_value(x).chunk(2, dim=1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = torch.full((5, 5), -torch.inf)
        for i in range(5):
            for j in range(i + 1):
                passed = turn_by_time((seconds[i] - seconds[j])[None], 4)
                (a, b), (c, d) = query[i, part].chunk(2), key[j, part].chunk(2)
                q, k = torch.complex(a, b), torch.complex(c, d)
                scores[i, j] = (q * torch.complex(passed.cos[0], passed.sin[0]) * k.conj()).real.sum() / 2
        heads.append(scores.softmax(1) @ value[:, part])
    torch.testing.assert_close(found, block.attention_out(torch.cat(heads, dim=1)), rtol=1e-4, atol=1e-5)


def test_a_training_batch_holds_the_times_of_its_events() -> None:
    histories = timed_histories([[1, 2], [10, 20, 30, 40, 50]])
    train = TrainDataset(histories, 30, 3, LossOptions(), seed=0, timed=True)
    seconds = train[BatchKey(np.array([0, 1]), 0, 0)].seconds
    assert seconds is not None
    assert seconds.tolist() == [20, 30, 40, 1]


def test_a_run_reads_times_in_training_and_in_use(tiny: Dataset, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows: Any = [tiny.items[a:b].tolist() for a, b in zip(tiny.offsets, tiny.offsets[1:], strict=False)]
    times = [np.cumsum(generator.integers(1, 10**6, len(row))).tolist() for row in rows]
    data = write_dataset(tmp_path / "timed", rows, 40, times)
    flags = ("--num_epochs", "2", "--hidden_units", "16", "--lr", "0.03", "--relative_time")
    command = Command("SASRec", data, tmp_path / "runs", flags)
    command.run()
    assert_recommends_as_it_was_tested(command.folder, data)


def test_a_dataset_without_times_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    test = leave_one_out(tiny).test
    with pytest.raises(ValueError, match="have no timestamps, only order: train without --relative_time"):
        make_inputs(test, np.arange(2), 8, timed=True)
    flags: Any = {"data_path": tiny.path, "training": TrainingConfig(runs_dir=tmp_path)}
    with pytest.raises(ValueError, match="dataset has no timestamps, only order: train without --relative_time"):
        main(Config(model=SASRecConfig(relative_time=True), **flags))
    assert not list(tmp_path.iterdir())  # so that the command without the flag finds no earlier run
    with pytest.raises(ValueError, match="--relative_time turns pairs of numbers: --hidden_units 6 over --num_heads 2"):
        SASRecConfig(hidden_units=6, num_heads=2, relative_time=True)
