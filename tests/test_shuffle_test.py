"""The shuffle test: what is shuffled, and what a model that goes by order or does not shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.shuffle_test import Config, main, shuffle_histories
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.training.module import NextItemModule, Recommender
from tests.conftest import write_dataset


@pytest.mark.parametrize("keep_last", [False, True])
def test_histories_are_shuffled_and_targets_stay(tiny: Dataset, keep_last: bool) -> None:
    view = leave_one_out(tiny).test
    shuffled = shuffle_histories(view, np.random.default_rng(0), keep_last)
    assert np.array_equal(shuffled.targets, view.targets)
    moved = 0
    for row in np.arange(len(view)):
        before, after = (some.gather(np.array([row]), 1000)[0].tolist() for some in (view, shuffled))
        assert sorted(before) == sorted(after)
        assert not keep_last or before[-1] == after[-1]
        moved += int(before != after)
    assert moved > len(view) / 2
    other = shuffle_histories(view, np.random.default_rng(1), keep_last)
    assert not np.array_equal(other.items, shuffled.items)


class Successor(NextItemModule):
    """Recommends the item after the last one."""

    def user_vectors(self, inputs: Any) -> Tensor:
        return torch.eye(41)[inputs % 40 + 1]

    def item_vectors(self) -> Tensor:
        return torch.eye(41)


def test_a_model_of_order_loses_and_keeps_with_the_last_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = [[(start + step) % 40 + 1 for step in range(12)] for start in range(40)]
    dataset = load_dataset(write_dataset(tmp_path / "cycle", histories, 40))
    recommender = Recommender(
        Successor(),
        lambda view, rows: torch.from_numpy(view.items[view.ends[rows] - 1].astype(np.int64)),
        lambda view: view.lengths,
    )
    monkeypatch.setattr("seqrec.training.restore.load_run", lambda folder, data_path: (dataset, recommender))
    protocol = {"split": "leave_one_out", "sample_size": -1, "filter_seen": False}
    (tmp_path / "metrics.json").write_text(json.dumps({"protocol": protocol}))
    lines = []
    for keep_last in (False, True):
        main(Config((tmp_path,), metric="Recall@1", keep_last=keep_last, device="cpu"))
        lines.append(capsys.readouterr().out.splitlines()[1].split())
    assert lines[0][1] == lines[1][1] == lines[1][2] == "1.0000"
    assert float(lines[0][2]) == pytest.approx(1 / 11, abs=0.06)  # the last of eleven is as likely any
    assert lines[1][3] == "+.0000"
