"""Trains RecTools' SASRec, BERT4Rec or HSTU and ranks all users; speed.py runs it with .venv-peers/rectools.

With `lean` in the settings, SASRec is the library's FlatSASRecNet under the Lightning module of its UniSRec, which
reads tensors where the other models read data frames.

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
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, UniSRecLightning, build_sequences
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from torch import Tensor
from torch.utils.data import DataLoader


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


def time_lean_preparation(path: Path, maxlen: int) -> float:
    """Return the seconds from a file of events to padded sequences."""
    start = time.perf_counter()
    columns = pd.read_csv(path, sep="\t").to_numpy().T.astype(np.int64)
    build_sequences(*map(torch.from_numpy, columns.copy()), max_len=maxlen)
    return time.perf_counter() - start


class LeanSASRec(FlatSASRecNet):  # type: ignore[misc, unused-ignore]
    """The network as UniSRec's Lightning module asks for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, D) outputs of (B, L) items."""
        hidden: Tensor = self.encode(x)
        return hidden

    def project_all(self) -> Tensor:
        """Return the vectors of padding and all items."""
        vectors: Tensor = self.item_emb.weight
        return vectors

    @torch.no_grad()
    def top_10(self, histories: Tensor, batch_size: int) -> Tensor:
        """Return (B, 10) best items of (B, L) histories."""
        self.eval()
        best = []
        for batch in histories.split(batch_size):
            scores = self.encode_last(batch) @ self.project_all().T
            scores[:, 0] = float("-inf")
            best.append(scores.topk(10, dim=1).indices)
        self.train()
        return torch.cat(best)


class Validation(EpochTimer):
    """Validates the lean SASRec after every epoch, too."""

    def __init__(self, net: LeanSASRec, histories: Tensor, targets: Tensor, known: Tensor, batch_size: int) -> None:
        super().__init__()
        self.net = net
        self.scores: list[float] = []
        self.validation_seconds: list[float] = []
        self._given = histories, targets, known, batch_size

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the epoch, and its NDCG@10."""
        super().on_train_epoch_end(trainer, pl_module)
        histories, targets, known, batch_size = self._given
        best = known[self.net.top_10(histories, batch_size) - 1]
        places = (best == targets[:, None]).nonzero()[:, 1]
        self.scores.append(float((1 / torch.log2(places + 2.0)).sum()) / len(targets))
        now = time.perf_counter()
        self.validation_seconds.append(now - self._since)
        self._since = now


def pad(users: NDArray[np.int64], items: NDArray[np.int64], maxlen: int) -> Tensor:
    """Return (U, maxlen) latest items of each user, padded on the left, from (E,) users and items in order of time."""
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    from_end = np.repeat(first + counts, counts) - np.arange(len(users))
    rows = np.repeat(np.arange(len(counts)), counts)
    padded = np.zeros((len(counts), maxlen), dtype=np.int64)
    recent = from_end <= maxlen
    padded[rows[recent], maxlen - from_end[recent]] = items[recent]
    return torch.from_numpy(padded)


def run_lean(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports of the lean SASRec."""
    maxlen, batch_size = settings["maxlen"], settings["batch_size"]
    lightning.seed_everything(settings["seed"], verbose=False)
    with np.load(settings["interactions"], allow_pickle=False) as arrays:
        users, items = (torch.from_numpy(arrays[f"train_{name}"].astype(np.int64)) for name in ("users", "items"))
        x, y, known, _ = build_sequences(users, items, torch.arange(len(users)), max_len=maxlen)
        # Its numbers of items; one that was never trained on is padding.
        code = np.zeros(max(int(arrays["test_items"].max()), int(known.max())) + 1, dtype=np.int64)
        code[known.numpy()] = np.arange(1, len(known) + 1)
        histories = pad(arrays["test_users"], code[arrays["test_items"]], maxlen)
        valid_histories = pad(arrays["valid_users"], code[arrays["valid_items"]], maxlen)
        valid_targets = torch.from_numpy(np.where(np.isin(arrays["valid_targets"], known), arrays["valid_targets"], -1))
    net = LeanSASRec(
        len(known),
        settings["hidden_units"],
        settings["num_blocks"],
        settings["num_heads"],
        maxlen,
        settings["dropout_rate"],
    )
    module = UniSRecLightning(net, [{"params": net.parameters(), "lr": settings["lr"]}], optimizer="adam")
    batches = DataLoader(SequenceBatchDataset(x, y), batch_size=batch_size, shuffle=True)
    timer = Validation(net, valid_histories, valid_targets, known, batch_size) if settings["validate"] else EpochTimer()
    make_trainer(settings, timer).fit(module, batches)
    start = time.perf_counter()
    net.top_10(histories, batch_size)
    rank_seconds = time.perf_counter() - start
    scores, seconds = ([], []) if not isinstance(timer, Validation) else (timer.scores, timer.validation_seconds)
    found = report(timer, scores, seconds or [0.0] * settings["epochs"], net) | {"rank_seconds": rank_seconds}
    events = Path(settings["folder"]) / "events" / "events.inter"
    return found | {"prepare_seconds": time_lean_preparation(events, maxlen)}


def report(
    timer: EpochTimer, scores: list[float], validation_seconds: list[float], net: torch.nn.Module
) -> dict[str, Any]:
    """Return what is reported of any model."""
    return {
        "epoch_seconds": [sum(both) for both in zip(timer.seconds, validation_seconds, strict=True)],
        "valid": scores,
        "loss": timer.losses[-1],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": sum(p.numel() for p in net.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("rectools", "torch", "pytorch-lightning")},
    }


def make_trainer(settings: dict[str, Any], timer: EpochTimer) -> lightning.Trainer:
    """Return a trainer that writes nothing."""
    return lightning.Trainer(
        max_epochs=settings["epochs"],
        min_epochs=settings["epochs"],
        precision=settings["precision"],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        devices=1,
        callbacks=[timer],
    )


def ndcg(top: pd.DataFrame, users: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Return the mean NDCG@10 of (U,) users with one (U,) target each, given their ten best items."""
    found = top.merge(pd.DataFrame({Columns.User: users, Columns.Item: targets}))
    return float((1 / np.log2(1 + found[Columns.Rank])).sum()) / len(users)


def make_model(settings: dict[str, Any]) -> BERT4RecModel | HSTUModel | SASRecModel:
    """Return RecTools' model of those settings, with its own trainer and a clock."""
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
        get_trainer_func=lambda: make_trainer(settings, EpochTimer()),
        **own,
    )
    return model


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports of the peer."""
    if settings["lean"]:
        return run_lean(settings)
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
    rank_seconds = time.perf_counter() - start
    found = report(timer, scores, validation_seconds, model.lightning_model) | {"rank_seconds": rank_seconds}
    return found | {"prepare_seconds": time_preparation(Path(settings["folder"]) / "events" / "events.inter")}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
