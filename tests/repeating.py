"""What a score of what histories have is to do in an ID family, against the softmax with its matrix of scores."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.evaluation.ranking import rank_scores
from seqrec.training.batches import HeldOut
from seqrec.training.checkpoints import load_state
from seqrec.training.id_model import IdModule
from tests import forked
from tests.conftest import write_dataset
from tests.interrupted import Command
from tests.recommending import assert_recommends_as_it_was_tested


def assert_scores_what_is_had(
    module: IdModule, histories: Histories, latest: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare a step and ranks with those of whole matrices of scores.

    Args:
        module: With a score of what is had, over 30 items, that drops nothing.
        histories: Of 12 items and fewer.
        latest: What the model reads of each history to rank what follows.
        monkeypatch: For the logging, which needs a trainer.
    """
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    assert module.repeat_score is not None
    module.repeat_score.data.fill_(-1.7)
    rows = np.arange(len(histories))
    batch = module.training_data(module.config, histories, 30)[BatchKey(rows, 0, 0)]
    table = module.item_vectors()
    scores = module._scaled(module.predict(batch, batch.items, module.event_vectors())) @ table.T
    had = torch.zeros_like(scores)
    had[batch.had.rows, batch.had.items] = 1
    expected = F.cross_entropy((scores + had * module.repeat_score)[:, 1:], batch.targets - 1)
    loss = module.training_step(batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    gradients = (torch.autograd.grad(mean, list(module.parameters())) for mean in (loss, expected))
    for gradient, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)

    with torch.no_grad():
        inputs, targets = module.make_inputs(histories, rows), torch.from_numpy(rows + 2)
        scores = module.user_vectors(inputs) @ table.T
        for row, items in enumerate(latest):
            scores[row, list(items)] -= 1.7
        (ranking,) = module.rank(HeldOut(inputs, torch.from_numpy(rows), targets, None), table)
        assert torch.equal(ranking.ranks, rank_scores(scores, targets).ranks)
        found, best = module.best(inputs, table, 30)
    torch.testing.assert_close(best, scores[:, 1:].sort(dim=1, descending=True).values, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.gather(1, found), best, rtol=0, atol=1e-5)


def assert_a_run_learns_it(family: str, flags: tuple[str, ...], folder: Path) -> None:
    """Train where nothing comes twice, and recommend."""
    histories = [np.random.default_rng(row).permutation(40)[:7] + 1 for row in range(90)]
    data = write_dataset(folder / "once", [items.tolist() for items in histories], 40)
    command = Command(family, data, folder / "runs", (*flags, "--num_epochs", "5", "--repeat_score"))
    command.run()
    assert load_state(command.folder / "checkpoints" / "last.ckpt")["repeat_score"].item() < -0.1
    assert_recommends_as_it_was_tested(command.folder, data)


def assert_two_learn_what_one_does(family: str, flags: tuple[str, ...], folder: Path) -> None:
    """Compare the losses of two epochs in one process with those in two that share the weights out, and the ranks."""
    histories = [np.random.default_rng(row).permutation(40)[:7] + 1 for row in range(61)]
    data = write_dataset(folder / "shared", [items.tolist() for items in histories], 40)
    flags = (*flags, "--num_epochs", "2", "--dropout_rate", "0", "--lr", "0.003", "--repeat_score")
    command = Command(family, data, folder / "one", flags)
    command.run()
    expected = pl.read_csv(command.folder / "logs/metrics.csv")
    for strategy in ("deepspeed_stage_3", "fsdp"):
        shared = Command(family, data, folder / strategy, (*flags, "--strategy", strategy, "--devices", "2"))
        shared.runs.mkdir()
        script, *given = shared.arguments()
        forked.run_pair(forked.run_as_main, str(forked.ROOT / script), given, folder=shared.runs)
        found = pl.read_csv(shared.folder / "logs/metrics.csv")
        for name in ("train/loss", "valid/NDCG@10"):
            assert found[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-3), (strategy, name)
