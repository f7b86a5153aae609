"""Imported weights: what they score, and the run that is made of them. Families bring their published network."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import Dataset
from tests.histories import as_histories

ITEMS, WIDTH, MAXLEN, BLOCKS = 30, 12, 8, 2


def our_scores(published: Any, state: dict[str, Tensor], heads: int, lists: list[list[int]]) -> Tensor:
    """Return (B, N) scores of the mapped weights."""
    architecture, weights = published.read_weights(state, heads)
    module = published.Module(published.Config(model=architecture), ITEMS, None).eval()
    module.model.load_state_dict(weights)
    inputs = module.make_inputs(as_histories(lists), np.arange(len(lists)))
    with torch.no_grad():
        scores: Tensor = module.user_vectors(inputs) @ module.item_vectors().T
    return scores[:, 1:]


def import_weights(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "import_weights.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True)


def check_run(
    family: str,
    state: dict[str, Tensor],
    scores_of: Callable[[list[int]], Tensor],
    dataset: Dataset,
    folder: Path,
    shortest: int,
) -> None:
    """Import a state as a run, and compare its test's ranks with the published network's.

    Args:
        family: The family's folder.
        state: Weights as published.
        scores_of: The (N+1,) scores after a history.
        dataset: What they were trained on.
        folder: For the files.
        shortest: Shortest history that is scored as published.
    """
    from seqrec.training.restore import load_run

    torch.save({"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, folder / "w.pth")
    flags = (family, "--checkpoint", str(folder / "w.pth"), "--data_path", str(dataset.path))
    done = import_weights(*flags, "--runs_dir", str(folder / "runs"))
    assert done.returncode == 0, done.stderr[-2000:]
    run = folder / "runs" / family / dataset.name / "imported"
    assert json.loads((run / "metrics.json").read_text())["init_type"] == "none"
    ranks, checked = np.load(run / "ranks-test.npy"), 0
    for user in range(dataset.num_users):
        *history, target = dataset.items[dataset.offsets[user] : dataset.offsets[user + 1]].tolist()
        if ranks[user] >= 0 and len(history) >= shortest:
            scores = scores_of(history[-MAXLEN:])[1:]
            assert ranks[user] == int((scores > scores[target - 1]).sum())
            checked += 1
    assert checked > 3
    restored, recommender = load_run(run, dataset.path)
    assert restored.num_items == dataset.num_items and not recommender.module.training


def check_refusals(family: str, more_items: dict[str, Tensor], lacks: str, dataset: Dataset, folder: Path) -> None:
    """Check that weights of other items or of another model are refused in a sentence, and nothing is written."""
    from scripts.import_weights import Config, main

    torch.save(more_items, folder / "more.pth")
    torch.save({"a": torch.zeros(1)}, folder / "other.pth")
    for name, file, message in (
        (family, "more.pth", f"items and {dataset.path} {dataset.num_items} items"),
        (family, "other.pth", f"lack '{lacks}', which a published"),
        ("Nothing", "other.pth", "the family must be one of"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            main(Config(name, folder / file, data_path=dataset.path, runs_dir=folder / "runs"))
    assert not (folder / "runs").exists()
