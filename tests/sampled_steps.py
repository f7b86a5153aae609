"""A training step of an ID model reads only the items that its loss names, and learns what all of them would teach."""

from typing import Any

import pytest
import torch

from seqrec.nn.losses import catalogue_loss
from seqrec.training.id_model import IdModule


def assert_reads_what_it_names(module: IdModule, batch: Any, num_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare a step with the same loss over all items.

    Args:
        module: That drops nothing, with a sampled loss.
        batch: Of training.
        num_items: N.
        monkeypatch: For the logging, which needs a trainer.
    """
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    read: list[torch.Tensor] = []
    embedding = module.model.item_embedding
    hook = embedding.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    found = module.training_step(batch)
    hook.remove()
    (rows,) = read
    assert rows.tolist() == sorted({*batch.items.tolist(), *batch.targets.tolist(), *batch.negatives.items.tolist()})
    assert len(rows) < num_items  # or nothing is shown

    table = embedding.vectors()
    hidden, classes = module.predict(batch, batch.items, table), module.model.item_vectors(table)
    sampled = batch.negatives
    loss_of_all = (batch.targets, sampled.items, sampled.log_chance, num_items)
    expected = catalogue_loss(module.config.objective, hidden, classes, *loss_of_all)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = (torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in (found, expected))
    for gradient, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)
