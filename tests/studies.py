"""Run folders and a prepared dataset as commands leave them, for what reads results."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

USERS, ITEMS = 400, 60
PROTOCOL = {
    "split": "leave_one_out",
    "sample_size": -1,
    "filter_seen": False,
    "num_items": ITEMS,
    "sequences_sha256": "5" * 64,
    "item_ids_sha256": "1" * 64,
}


def write_run(
    runs: Path,
    family: str,
    group: str,
    seed: int,
    ranks: NDArray[np.int64],
    dataset: str = "toy",
    **protocol: Any,
) -> Path:
    """Write a run folder as a family's finetune.py leaves it, metrics computed here by plain Python."""
    folder = runs / family / dataset / f"{group}-seed{seed}"
    folder.mkdir(parents=True)
    np.save(folder / "ranks-test.npy", ranks)
    tested = [int(r) for r in ranks if r >= 0]
    test: dict[str, float] = {"users": len(tested), "tied_users": 0.0, "AUC": 0.5}
    for k in (1, 5, 10, 20, 50):
        test[f"Recall@{k}"] = sum(r < k for r in tested) / len(tested)
        test[f"NDCG@{k}"] = sum(1 / np.log2(r + 2) for r in tested if r < k) / len(tested)
    test["MRR"] = sum(1 / (r + 1) for r in tested) / len(tested)
    record = {
        "family": family,
        "dataset": dataset,
        "init_type": group,
        "group": group,
        "seed": seed,
        "protocol": PROTOCOL | protocol,
        "valid": test,
        "test": test,
        "best_epoch": 12,
        "epochs": 22,
        "cost": {
            "train_seconds": 100.0 + seed,
            "test_seconds": 0.5,
            "peak_memory_bytes": 3 << 29,
            "parameters": 1_234_567,
            "trainable_parameters": 1_234_567,
            "item_vector_bytes": ITEMS * 384 * 4,
            "device": "cpu",
            "threads": 2,
        },
    }
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder


def draw_ranks(seed: int, strength: float, users: int = USERS, items: int = ITEMS) -> NDArray[np.int64]:
    """Return (users,) ranks: lower with more strength, the same users hard in every run, user 0 untested."""
    difficulty = np.random.default_rng(0).exponential(1, users)
    noise = np.random.default_rng(seed + 1).exponential(0.3, users)
    ranks = np.minimum((items * (difficulty + noise) / strength / 4).astype(np.int64), items - 1)
    ranks[0] = -1
    return ranks


def write_study(runs: Path, users: int = USERS, items: int = ITEMS, **protocol: Any) -> None:
    """Write two ID models with baseline and a third family without, three seeds each."""
    rows = [
        (family, group, strength + shift)
        for family, shift in (("SASRec", 0.0), ("Bert4Rec", -0.15))
        for group, strength in (("none", 1.0), ("longformer", 1.2), ("finetune", 1.9))
    ]
    for family, group, strength in [*rows, ("Baselines", "item-knn", 0.8)]:
        for seed in (42, 43, 44):
            ranks = draw_ranks(seed + int(100 * strength), strength, users, items)
            write_run(runs, family, group, seed, ranks, num_items=items, **protocol)


def write_dataset(folder: Path, histories: list[list[int]], num_items: int = ITEMS) -> dict[str, Any]:
    """Write a prepared dataset and return its two hashes."""
    (folder / "sequences").mkdir(parents=True)
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    items = np.array([i for history in histories for i in history], dtype=np.int32)
    np.save(folder / "sequences" / "offsets.npy", offsets)
    np.save(folder / "sequences" / "items.npy", items)
    pl.DataFrame({"item": range(1, num_items + 1)}).write_parquet(folder / "items.parquet")
    names = [f"user-{user}" for user in range(len(histories))]
    pl.DataFrame({"user": pl.Series(range(len(histories)), dtype=pl.Int32), "raw_id": names}).write_parquet(
        folder / "users.parquet"
    )
    hashes = {
        "item_ids_sha256": hashlib.sha256(b"ids").hexdigest(),
        "sequences_sha256": hashlib.sha256(offsets.tobytes() + items.tobytes()).hexdigest(),
    }
    manifest = {
        "format": 1,
        "name": folder.name,
        "num_users": len(histories),
        "num_items": num_items,
        "num_interactions": len(items),
        "attributes": [],
        "has_timestamps": False,
        "source": {},
        **hashes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return hashes
