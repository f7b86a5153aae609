"""Trains RecBole's SASRec or BERT4Rec and ranks all users; run by scripts/benchmarks/speed.py with .venv-peers/recbole.

python scripts/benchmarks/peer_recbole.py SETTINGS.json

An epoch of RecBole's has one sample for each target, so its batches hold as many targets as ours hold on average.
Prints a line that starts with "epoch" after each epoch, and a line of JSON at the end.
"""

import importlib.metadata
import json
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # it reads back what it has written itself

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def count_targets(settings: dict[str, Any]) -> tuple[int, int]:
    """Return how many users have a target in training, and the targets."""
    with np.load(settings["interactions"], allow_pickle=False) as arrays:
        lengths = np.unique(arrays["train_users"], return_counts=True)[1]
    return int((lengths > 1).sum()), int((lengths - 1).sum())


def make_config(settings: dict[str, Any], num_sequences: int, num_targets: int) -> Config:
    """Return RecBole's own settings for the same model and training."""
    batches = -(-num_sequences // settings["batch_size"])
    width = settings["hidden_units"]
    given = {
        "data_path": settings["folder"],
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": settings["maxlen"],
        "n_layers": settings["num_blocks"],
        "n_heads": settings["num_heads"],
        "hidden_size": width,
        "inner_size": width if settings["model"] == "SASRec" else 4 * width,
        "hidden_dropout_prob": settings["dropout_rate"],
        "attn_dropout_prob": settings["dropout_rate"],
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "learning_rate": settings["lr"],
        "epochs": settings["epochs"],
        "train_batch_size": -(-num_targets // batches),
        "eval_batch_size": 4096,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG", "Recall"],
        "topk": [10],
        "metric_decimal_place": 6,
        "valid_metric": "NDCG@10",
        "seed": settings["seed"],
        "gpu_id": "",
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": settings["folder"],
    }
    if settings["model"] == "Bert4Rec":
        given["mask_ratio"] = settings["mask_prob"]
    name = {"SASRec": "SASRec", "Bert4Rec": "BERT4Rec"}[settings["model"]]
    sys.argv = sys.argv[:1]  # which it would read as its own
    return Config(model=name, dataset="events", config_dict=given)


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports of the peer."""
    os.chdir(settings["folder"])
    logging.disable(logging.WARNING)
    config = make_config(settings, *count_targets(settings))
    init_seed(config["seed"], reproducibility=True)
    start = time.perf_counter()
    train, valid, test = data_preparation(config, create_dataset(config))
    prepare_seconds = time.perf_counter() - start
    model = get_model(config["model"])(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    seconds, scores, loss = [], [], float("nan")
    for epoch in range(settings["epochs"]):
        start = time.perf_counter()
        total = trainer._train_epoch(train, epoch)
        if settings["validate"]:
            scores.append(float(trainer.evaluate(valid, load_best_model=False)["ndcg@10"]))
        seconds.append(time.perf_counter() - start)
        loss = float(total) / len(train)
        print(f"epoch {epoch}: {seconds[-1]:.1f} s", flush=True)
    start = time.perf_counter()
    trainer.evaluate(test, load_best_model=False)
    return {
        "prepare_seconds": prepare_seconds,
        "epoch_seconds": seconds,
        "valid": scores,
        "rank_seconds": time.perf_counter() - start,
        "loss": loss,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("recbole", "torch", "numpy")},
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
