"""Trains RecTools' SASRec, BERT4Rec or HSTU and ranks all users; speed.py runs it with .venv-peers/rectools.

python scripts/benchmarks/peer_rectools.py SETTINGS.json

Prints a line that starts with "epoch" after each epoch, and a line of JSON at the end.
"""

import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel


class EpochTimer(lightning.Callback):
    """Seconds and mean loss of every epoch, timed as the project's own trainer times them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._since = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the epoch."""
        now = time.perf_counter()
        self.seconds.append(now - self._since)
        self._since = now
        self.losses.append(float(trainer.callback_metrics["train_loss"]))
        print(f"epoch {trainer.current_epoch}: {self.seconds[-1]:.1f} s", flush=True)


def make_dataset(users: NDArray[np.int64], items: NDArray[np.int64]) -> Dataset:
    """Return interactions as RecTools holds them, from (E,) users and items in order of time."""
    moments = pd.to_datetime(np.arange(len(users)), unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: moments}
    return Dataset.construct(pd.DataFrame(columns))


def time_preparation(path: Path) -> float:
    """Return the seconds from a file of events to a dataset, which is not split yet."""
    start = time.perf_counter()
    events = pd.read_csv(path, sep="\t")
    events.columns = pd.Index([Columns.User, Columns.Item, Columns.Datetime])
    events[Columns.Datetime] = pd.to_datetime(events[Columns.Datetime], unit="s")
    events[Columns.Weight] = 1.0
    Dataset.construct(events)
    return time.perf_counter() - start


def ndcg(top: pd.DataFrame, users: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Return the mean NDCG@10 of (U,) users with one (U,) target each, given their ten best items."""
    found = top.merge(pd.DataFrame({Columns.User: users, Columns.Item: targets}))
    return float((1 / np.log2(1 + found[Columns.Rank])).sum()) / len(users)


def make_model(settings: dict[str, Any]) -> BERT4RecModel | HSTUModel | SASRecModel:
    """Return RecTools' model of those settings, with its own trainer and a clock."""

    def make_trainer() -> lightning.Trainer:
        return lightning.Trainer(
            max_epochs=settings["epochs"],
            min_epochs=settings["epochs"],
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            accelerator="cpu",
            devices=1,
            callbacks=[EpochTimer()],
        )

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "SASRec": (SASRecModel, {}),
        "Bert4Rec": (BERT4RecModel, {"mask_prob": settings.get("mask_prob")}),
        "PerSRec": (HSTUModel, {"relative_time_attention": False}),
    }
    kind, own = kinds[settings["model"]]
    model: BERT4RecModel | HSTUModel | SASRecModel = kind(
        n_blocks=settings["num_blocks"],
        n_heads=settings["num_heads"],
        n_factors=settings["hidden_units"],
        dropout_rate=settings["dropout_rate"],
        session_max_len=settings["maxlen"],
        batch_size=settings["batch_size"],
        lr=settings["lr"],
        loss="softmax",
        use_pos_emb=True,
        recommend_torch_device="cpu",
        get_trainer_func=make_trainer,
        **own,
    )
    return model


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports of the peer."""
    model = make_model(settings)
    with np.load(settings["interactions"], allow_pickle=False) as arrays:
        training = make_dataset(arrays["train_users"], arrays["train_items"])
        histories = make_dataset(arrays["test_users"], arrays["test_items"])
        users = np.unique(arrays["test_users"])
        valid_histories = make_dataset(arrays["valid_users"], arrays["valid_items"])
        valid_users, valid_targets = np.unique(arrays["valid_users"]), arrays["valid_targets"]
    lightning.seed_everything(settings["seed"], verbose=False)
    scores, validation_seconds = [], []
    if settings["validate"]:
        for _ in range(settings["epochs"]):
            model.fit_partial(training, min_epochs=1, max_epochs=1)
            start = time.perf_counter()
            top = model.recommend(valid_users, valid_histories, k=10, filter_viewed=False)
            scores.append(ndcg(top, valid_users, valid_targets))
            validation_seconds.append(time.perf_counter() - start)
    else:
        model.fit(training)
        validation_seconds = [0.0] * settings["epochs"]
    assert model.fit_trainer is not None  # it holds a copy of the trainer made above
    (timer,) = (c for c in model.fit_trainer.callbacks if isinstance(c, EpochTimer))
    start = time.perf_counter()
    model.recommend(users, histories, k=10, filter_viewed=False)
    rank_seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "prepare_seconds": time_preparation(Path(settings["folder"]) / "events" / "events.inter"),
        "epoch_seconds": [sum(both) for both in zip(timer.seconds, validation_seconds, strict=True)],
        "valid": scores,
        "rank_seconds": rank_seconds,
        "loss": timer.losses[-1],
        "peak_memory_bytes": peak,
        "parameters": sum(p.numel() for p in model.lightning_model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("rectools", "torch", "pytorch-lightning")},
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
