"""SASRec: the paper's equations, what an event may read, starting vectors, learning, resuming."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SASRec.data import TrainDataset, make_inputs
from SASRec.model import SASRec, SASRecConfig
from SASRec.module import SASRecModule
from SASRec.options import Config
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from seqrec.nn.item_table import GivenVectors, InitMode, TableOptions
from seqrec.nn.losses import Loss, LossOptions
from seqrec.training.checkpoints import load_state
from tests.conftest import write_dataset
from tests.histories import as_histories, random_lists
from tests.id_family_runs import IdFamilyRuns
from tests.interrupted import Command
from tests.recommending import assert_recommends_as_it_was_tested
from tests.repeating import (
    assert_a_run_learns_it,
    assert_scores_what_is_had,
    assert_two_learn_what_one_does,
)
from tests.sampled_steps import assert_reads_what_it_names

# Under these the tiny dataset's run stops early.
FLAGS = ("--num_epochs", "30", "--patience", "4", "--batch_size", "32", "--hidden_units", "16", "--lr", "0.03")
MAXLEN = 8


@pytest.fixture(
    scope="module",
    params=[("sasrec", 1), ("sasrec", 2), ("ligr", 2)],
    ids=["one head", "two heads", "gated"],
)
def model(request: pytest.FixtureRequest) -> SASRec:
    block, heads = request.param
    torch.manual_seed(0)
    config = SASRecConfig(hidden_units=12, num_blocks=2, num_heads=heads, maxlen=MAXLEN, block=block)
    model = SASRec(30, config).eval()
    for parameter in model.parameters():  # biases and norms too, so that nothing is 0 or 1 by chance
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model.requires_grad_(False)


def predict(model: SASRec, lists: list[list[int]]) -> Tensor:
    """Return what the last event of each history predicts with, (B, D)."""
    inputs = make_inputs(as_histories(lists), np.arange(len(lists)), MAXLEN)
    last: Tensor = model(inputs.items, inputs.positions, inputs.layout, inputs.last)
    return last[inputs.order]


def predict_all(model: SASRec, lists: list[list[int]]) -> list[Tensor]:
    """Return what every event of each history predicts with, (L, D) each."""
    inputs = make_inputs(as_histories(lists), np.arange(len(lists)), MAXLEN)
    flat = model(inputs.items, inputs.positions, inputs.layout)
    parts = flat.split(np.diff(inputs.layout.offsets.numpy()).tolist())
    return [parts[i] for i in inputs.order.tolist()]


def predict_plainly(model: SASRec, history: list[int]) -> Tensor:
    """Return (L, D) by the equations of the papers, one history at a time, with torch's own attention."""
    weights = model.state_dict()
    width, recent = model.config.hidden_units, history[-MAXLEN:]
    x = weights["item_embedding.weight"][recent] * width**0.5
    x = x + weights["position_embedding.weight"][MAXLEN - len(recent) :]
    for block in range(model.config.num_blocks):
        own = {k.removeprefix(f"blocks.{block}."): v for k, v in weights.items() if k.startswith(f"blocks.{block}.")}
        attention = nn.MultiheadAttention(width, model.config.num_heads, batch_first=True)
        attention.load_state_dict(
            {
                "in_proj_weight": torch.cat([own["query.weight"], own["key_value.weight"]]),
                "in_proj_bias": torch.cat([own["query.bias"], own["key_value.bias"]]),
                "out_proj.weight": own["attention_out.weight"],
                "out_proj.bias": own["attention_out.bias"],
            }
        )
        query = norm(x, own, "attention_norm")
        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        if model.config.block == "ligr":
            mixed, _ = attention(query[None], query[None], query[None], attn_mask=future, need_weights=False)
            x = x + gate(x, own, "attention_gate") * mixed[0]
            left, right = (norm(x, own, "feed_forward_norm") @ own["feed_forward_in.weight"].T).chunk(2, dim=1)
            inner = left * left.sigmoid() * right
            x = x + gate(x, own, "feed_forward_gate") * (inner @ own["feed_forward_out.weight"].T)
            continue
        mixed, _ = attention(query[None], x[None], x[None], attn_mask=future, need_weights=False)
        x = norm(query + mixed[0], own, "feed_forward_norm")
        inner = (x @ own["feed_forward.0.weight"].T + own["feed_forward.0.bias"]).relu()
        x = x + inner @ own["feed_forward.3.weight"].T + own["feed_forward.3.bias"]
    return norm(x, weights, "last_norm")


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gate(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).sigmoid()


LENGTHS = [1, 8, 3, 2, 20, 7, 1, 5]


@torch.no_grad()
def test_equals_the_papers_equations(model: SASRec) -> None:
    lists = random_lists(LENGTHS)
    for ours, history in zip(predict_all(model, lists), lists, strict=True):
        torch.testing.assert_close(ours, predict_plainly(model, history), rtol=1e-5, atol=1e-5)


def test_the_last_event_alone_is_the_last_row_of_all(model: SASRec) -> None:
    lists = random_lists(LENGTHS)
    every = torch.stack([rows[-1] for rows in predict_all(model, lists)])
    torch.testing.assert_close(predict(model, lists), every, rtol=1e-5, atol=1e-6)


def test_alone_as_in_any_batch(model: SASRec) -> None:
    lists = random_lists(LENGTHS)
    together = predict(model, lists)
    for row, history in enumerate(lists):
        torch.testing.assert_close(predict(model, [history])[0], together[row], rtol=1e-5, atol=1e-6)
    order = [5, 1, 0, 7]
    torch.testing.assert_close(predict(model, [lists[i] for i in order]), together[order], rtol=1e-5, atol=1e-6)


def test_no_event_reads_a_later_one(model: SASRec) -> None:
    (history,) = random_lists([8])
    (before,) = predict_all(model, [history])
    for changed in range(8):
        other = [*history[:changed], history[changed] % 30 + 1, *history[changed + 1 :]]
        (after,) = predict_all(model, [other])
        assert torch.equal(after[:changed], before[:changed])
        assert (after[changed:] != before[changed:]).any(dim=1).all()


def test_only_the_most_recent_events_are_read(model: SASRec) -> None:
    (history,) = random_lists([20])
    assert torch.equal(predict(model, [history]), predict(model, [history[-MAXLEN:]]))


def test_a_training_batch_by_hand() -> None:
    train = TrainDataset(as_histories([[4, 5], [9], [1, 2, 3, 4, 5], [6, 7, 8]]), 30, 3, LossOptions(), seed=0)
    assert train.lengths.tolist() == [1, 3, 2]  # the user with one event has nothing to predict
    batch = train[BatchKey(np.array([0, 1, 2]), epoch=0, number=0)]
    assert batch.items.tolist() == [2, 3, 4, 6, 7, 4]  # longest first, at most 3 events and the one after them
    assert batch.targets.tolist() == [3, 4, 5, 7, 8, 5]
    assert batch.positions.tolist() == [0, 1, 2, 1, 2, 2]
    assert batch.layout.offsets.tolist() == [0, 3, 5, 6]
    assert len(batch.negatives.items) == 0
    with pytest.raises(ValueError, match="no training sequence has 2 items"):
        TrainDataset(as_histories([[1], [2]]), 30, 3, LossOptions(), seed=0)


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
def test_negatives_depend_on_the_batch_alone(loss: Loss) -> None:
    lists = random_lists([12] * 20)
    train = TrainDataset(as_histories(lists), 30, 50, LossOptions(loss, 256 if loss == "bce" else 7), seed=3)
    key = BatchKey(np.arange(20), epoch=1, number=2)
    batch = train[key]
    negatives = batch.negatives.items
    assert torch.equal(negatives, train[key].negatives.items)
    assert not torch.equal(negatives, train[key._replace(epoch=2)].negatives.items)
    if loss == "bce":  # one for each target, none that the user has
        assert negatives.shape == batch.targets.shape
        rows = np.repeat(np.arange(20), 11)
        assert all(item not in lists[row] for row, item in zip(rows, negatives.tolist(), strict=True))
    else:
        assert len(negatives.unique()) == 7
    assert 1 <= negatives.min() <= negatives.max() <= 30


def test_given_vectors_are_read_and_score() -> None:
    vectors = np.random.default_rng(0).normal(size=(31, 12)).astype(np.float32)
    start = GivenVectors(vectors, np.ones(31, dtype=bool), TableOptions(init_transform=("none",)))
    model = SASRec(30, SASRecConfig(hidden_units=12), start).eval()
    assert torch.equal(model.item_vectors()[1:], torch.from_numpy(vectors[1:]))
    hidden = predict(model, [[1, 2]])
    model.item_embedding.weight.data[2] += 1
    assert not torch.equal(predict(model, [[1, 2]]), hidden)


@pytest.mark.parametrize("mode", ["init", "residual", "adapter"])
def test_a_table_at_hand_is_not_looked_up_again(mode: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(31, 20)).astype(np.float32)
    start = GivenVectors(vectors, np.ones(31, dtype=bool), TableOptions(init_mode=mode))
    model = SASRec(30, SASRecConfig(hidden_units=12), start).eval()
    inputs = make_inputs(as_histories([[1, 2, 3], [4]]), np.arange(2), MAXLEN)
    arguments = inputs.items, inputs.positions, inputs.layout, inputs.last
    torch.testing.assert_close(model(*arguments, table=model.item_embedding.vectors()), model(*arguments))


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--hidden_units 10 must be a multiple of --num_heads 4"):
        SASRecConfig(hidden_units=10, num_heads=4)
    with pytest.raises(ValueError, match=r"--dropout_rate must lie in \[0, 1\), got 1"):
        SASRecConfig(dropout_rate=1)
    with pytest.raises(ValueError, match="--num_heads must be at least 1, got 0"):
        SASRecConfig(num_heads=0)
    with pytest.raises(ValueError, match="--maxlen must be at least 1, got 0"):
        SASRecConfig(maxlen=0)
    with pytest.raises(ValueError, match="--init_mode frozen with --init_type none would keep item vectors random"):
        Config(table=TableOptions(freeze_items=True))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({}, 0.02), ({"init_type": "mine"}, 0.002), ({"init_type": "mine", "item_lr": 0.5}, 0.5), ({"item_lr": 0.1}, 0.1)],
)
def test_given_vectors_learn_slowly(monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], expected: float) -> None:
    trainer = SimpleNamespace(estimated_stepping_batches=10, max_epochs=1, gradient_clip_val=None)
    monkeypatch.setattr(SASRecModule, "trainer", trainer)
    module = SASRecModule(Config(lr=0.02, **flags), 5, None)
    *others, table = module.configure_optimizers()["optimizer"].param_groups
    assert ([group["lr"] for group in others], table["lr"]) == ([0.02] * 2, pytest.approx(expected))
    assert [id(parameter) for parameter in table["params"]] == [id(module.model.item_embedding.weight)]
    assert sum(len(group["params"]) for group in others) == len(list(module.parameters())) - 1


def test_a_temperature_makes_scores_cosines() -> None:
    module = SASRecModule(Config(objective=LossOptions(temp=0.05)), 40, None).eval()
    inputs = make_inputs(as_histories([[3, 4, 5], [9]]), np.arange(2), 50)
    with torch.no_grad():
        scores = module.user_vectors(inputs) @ module.item_vectors().T
        expected = F.cosine_similarity(module.read(inputs)[:, None], module.model.item_vectors()[None], dim=2) / 0.05
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
@pytest.mark.parametrize("mode", ["init", "residual", "adapter"])
def test_a_sampled_loss_reads_what_it_names(loss: Loss, mode: InitMode, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = LossOptions(loss, 256 if loss == "bce" else 6)
    vectors = np.random.default_rng(0).normal(size=(31, 12)).astype(np.float32)
    start = GivenVectors(vectors, np.ones(31, dtype=bool), TableOptions(init_mode=mode))
    config = Config(objective=objective, init_type="mine", model=SASRecConfig(8, dropout_rate=0.0))
    batch = TrainDataset(as_histories(random_lists([9, 4, 2])), 30, 50, objective, seed=0)[BatchKey(np.arange(3), 0, 0)]
    assert_reads_what_it_names(SASRecModule(config, 30, start), batch, 30, monkeypatch)


def test_a_score_of_what_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[3, 1, 3, 3], [2, 4], [5, 5], [1, 2, 3, 2, 1, 7, 8, 9, 9, 4, 5, 6], [4, 6, 5, 4, 4, 6]]
    module = SASRecModule(
        Config(repeat_score=True, model=SASRecConfig(8, maxlen=MAXLEN, dropout_rate=0.0)), 30, None
    ).eval()
    assert_scores_what_is_had(module, as_histories(lists), [set(items[-MAXLEN:]) for items in lists], monkeypatch)


def test_a_run_learns_the_score_of_what_is_had(tmp_path: Path) -> None:
    assert_a_run_learns_it("SASRec", FLAGS, tmp_path)
    assert_two_learn_what_one_does("SASRec", FLAGS, tmp_path)
    with pytest.raises(UserError, match="--repeat_score is for --loss ce"):
        Config(repeat_score=True, objective=LossOptions("bce"))


class TestRuns(IdFamilyRuns):
    """Whole runs."""

    family, flags = "SASRec", FLAGS


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
def test_other_losses_train(loss: str, tiny_path: Path, tmp_path: Path) -> None:
    command = Command("SASRec", tiny_path, tmp_path, (*FLAGS, "--num_epochs", "8", "--loss", loss))
    command.run()
    curve = (command.folder / "logs" / "metrics.csv").read_text().splitlines()
    column = curve[0].split(",").index("train/loss")
    losses = [float(line.split(",")[column]) for line in curve[1:]]
    assert losses[-1] < losses[0] - 0.1
    assert not load_state(command.folder / "checkpoints" / "last.ckpt")["model.item_embedding.weight"][0].any()


def test_frozen_vectors_stay_and_the_projection_learns(tiny: Dataset, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(41, 24)).astype(np.float32)
    vectors[0] = 0
    save_embeddings(embedding_path(tiny, "own", tmp_path), vectors, tiny, Producer("test", None, {}))
    where = ("--init_type", "own", "--embedding_dir", str(tmp_path), "--init_transform", "none")
    command = Command(
        "SASRec", tiny.path, tmp_path / "runs", (*FLAGS, *where, "--num_epochs", "2", "--freeze_items"), "own"
    )
    command.run()
    state = load_state(command.folder / "checkpoints" / "last.ckpt")
    np.testing.assert_array_equal(state["model.item_embedding.weight"].numpy(), vectors)
    start = GivenVectors(vectors, np.ones(41, dtype=bool), TableOptions(init_transform=("none",)))
    torch.manual_seed(42)
    untrained = SASRec(40, SASRecConfig(hidden_units=16), start).state_dict()
    assert not torch.equal(state["model.item_embedding.adapter.weight"], untrained["item_embedding.adapter.weight"])
    cost = command.metrics()["cost"]
    assert cost["parameters"] - cost["trainable_parameters"] == 41 * 24
    assert cost["item_vector_bytes"] == 41 * 16 * 4
    assert command.metrics()["vectors_sha256"] == hashlib.sha256(vectors.tobytes()).hexdigest()
    assert_recommends_as_it_was_tested(command.folder, tiny.path)


@pytest.mark.parametrize(("thawing", "learns"), [((), False), (("--unfreeze_at", "2"), True)])
def test_frozen_vectors_learn_from_the_epoch_asked_for(
    tiny: Dataset, tmp_path: Path, thawing: tuple[str, ...], learns: bool
) -> None:
    vectors = np.random.default_rng(0).normal(size=(41, 24)).astype(np.float32)
    vectors[0] = 0
    save_embeddings(embedding_path(tiny, "own", tmp_path), vectors, tiny, Producer("test", None, {}))
    where = ("--init_type", "own", "--embedding_dir", str(tmp_path), "--init_transform", "none")
    flags = (*FLAGS, *where, "--num_epochs", "2", "--init_mode", "frozen", *thawing)
    command = Command("SASRec", tiny.path, tmp_path / "runs", flags, "own")
    command.run()
    table = load_state(command.folder / "checkpoints" / "last.ckpt")["model.item_embedding.weight"].numpy()
    assert (np.abs(table - vectors).max() > 1e-4) == learns


def test_learns_a_cycle(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    starts, lengths = generator.integers(0, 25, 150), generator.integers(4, 12, 150)
    histories = [[(start + step) % 25 + 1 for step in range(n)] for start, n in zip(starts, lengths, strict=True)]
    path = write_dataset(tmp_path / "cycle", histories, 25)
    flags = ("--num_epochs", "25", "--batch_size", "32", "--lr", "0.01", "--patience", "5", "--hidden_units", "32")
    command = Command("SASRec", path, tmp_path / "runs", flags)
    command.run()
    assert len(leave_one_out(load_dataset(path)).test) == 150
    assert command.metrics()["test"]["Recall@1"] > 0.9
