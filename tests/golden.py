"""The losses of the first steps of a training, kept in `golden.json` beside a family's tests.

They were computed once by this project. Other tests show that they are right, these that they stayed as they were.
A change that is meant to change them (a default, a model, how random numbers are drawn) writes them again:
`SEQREC_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/SASRec/test_golden.py`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

TOLERANCE = 1e-5
"""Relative: processors add up in other orders."""


def fill(module: nn.Module, std: float = 0.2) -> None:
    """Give a module weights that no version of a library changes: matrices normal, biases zero, norms one."""
    for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
        values = np.random.default_rng(number).normal(0, std, tuple(parameter.shape))
        if parameter.dim() == 1:
            values = np.full(tuple(parameter.shape), float("norm" in name.lower() and name.endswith("weight")))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))


def train(module: Any, batches: Iterable[Any], lr: float = 0.01) -> list[float]:
    """Return the loss of each batch, with a small step of gradient descent after it: large ones multiply rounding."""
    module.log = lambda *_, **__: None
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr)
    torch.manual_seed(0)  # of dropout
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = module.training_step(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def assert_unchanged(folder: Path, losses: Mapping[str, list[float]]) -> None:
    """Compare losses by name with those of a folder's golden.json, or write them there."""
    file = folder / "golden.json"
    if os.environ.get("SEQREC_WRITE_GOLDEN"):
        file.write_text(json.dumps(losses, indent=1) + "\n")
    kept = json.loads(file.read_text())
    assert kept.keys() == losses.keys()
    for name, values in losses.items():
        np.testing.assert_allclose(values, kept[name], rtol=TOLERANCE, err_msg=f"{file}: {name}")
