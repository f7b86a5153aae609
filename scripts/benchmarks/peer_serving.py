"""Times how RecTools answers requests of a SASRec: .venv-peers/rectools/bin/python, after setup_peer.sh rectools.

.venv-peers/rectools/bin/python scripts/benchmarks/peer_serving.py

RecTools has no service of its own: `model.recommend` answers, in the process that calls it, users whose events it is
given as a dataset. So here is no HTTP, no parsing and no client, all of which are in the figures of serving.py. The
model is trained on one batch, which makes no difference to the time.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

ITEMS, LENGTH, WIDTH, K = 100_000, 50, 64, 10
ROUNDS = {1: 100, 16: 25, 64: 10}
"""Requests that are answered together, and how often."""


def make_dataset(histories: NDArray[np.int64]) -> Dataset:
    """Return (B, L) histories as RecTools holds them."""
    users = np.repeat(np.arange(len(histories)), histories.shape[1])
    moments = pd.to_datetime(np.arange(len(users)), unit="s")
    columns = {Columns.User: users, Columns.Item: histories.ravel(), Columns.Weight: 1.0, Columns.Datetime: moments}
    return Dataset.construct(pd.DataFrame(columns))


def make_trainer() -> lightning.Trainer:
    """Return a trainer of one batch."""
    return lightning.Trainer(
        max_steps=1,
        min_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        devices=1,
    )


def main(threads: int) -> dict[int, Any]:
    """Return the milliseconds of a call, and requests a second, by how many are answered together."""
    torch.set_num_threads(threads)
    draw = np.random.default_rng(0)
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=WIDTH,
        session_max_len=LENGTH,
        batch_size=8,
        loss="BCE",
        n_negatives=1,
        recommend_batch_size=64,
        recommend_torch_device="cpu",
        get_trainer_func=make_trainer,
    )
    model.fit(make_dataset(draw.permutation(ITEMS).reshape(-1, LENGTH)))
    found = {}
    for together, rounds in ROUNDS.items():
        took = []
        for _ in range(rounds + 3):
            histories = draw.integers(0, ITEMS, (together, LENGTH))
            start = time.perf_counter()
            answers = model.recommend(np.arange(together), make_dataset(histories), k=K, filter_viewed=True)
            took.append(time.perf_counter() - start)
            assert len(answers) == together * K
        p50, p99 = np.quantile(took[3:], [0.5, 0.99]) * 1000
        rate = together * rounds / sum(took[3:])
        found[together] = {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "requests_a_second": round(rate, 1)}
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)))
