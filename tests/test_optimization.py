"""The learning rate over a run, and what decays."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seqrec.nn.optimization import learning_rate_factor, schedule_rate
from tests.forked import ROOT


def test_the_rate_rises_to_one_and_falls_to_zero_without_a_jump() -> None:
    factor = learning_rate_factor(100, 1000)
    assert [factor(s) for s in (0, 50, 100, 550, 1000)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert learning_rate_factor(100, 20)(10) == 1.0


def test_a_constant_rate_rises_and_stays() -> None:
    factor = learning_rate_factor(10, 1000, "constant")
    assert [factor(s) for s in (0, 5, 10, 999)] == [0.0, 0.5, 1.0, 1.0]
    assert learning_rate_factor(0, 1000, "constant")(0) == 1.0


def test_a_group_begins_in_its_epoch() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    module: Any = SimpleNamespace(trainer=SimpleNamespace(estimated_stepping_batches=20, max_epochs=4))
    rates = schedule_rate(optimizer, module, 0, "constant", [0, 2])["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(20):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        rates.step()
    assert seen == [[1.0, 0.0]] * 10 + [[1.0, 1.0]] * 10


@pytest.mark.parametrize("family", [name for name in ("SASRec", "Bert4Rec") if (ROOT / name).is_dir()])
def test_weights_decay_and_biases_and_norms_do_not(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune = importlib.import_module(f"{family}.module")
    config = finetune.Config(weight_decay=0.5, lr=0.1)
    module = getattr(finetune, f"{family}Module")(config, 5, None)
    trainer = SimpleNamespace(estimated_stepping_batches=20, max_epochs=4, gradient_clip_val=None)
    monkeypatch.setattr(type(module), "trainer", trainer)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made = module.configure_optimizers()
    made["optimizer"].step()
    for name, parameter in module.named_parameters():
        # Without a gradient AdamW multiplies what decays by 1 - rate x decay, and leaves the rest.
        spared = name.endswith("bias") or "norm" in name or name.endswith("mask_embedding")
        torch.testing.assert_close(parameter.detach(), before[name] * (1 if spared else 0.95))
