"""BERT4Rec: the paper's equations, what an asked event may read, starting vectors, learning, resuming."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from Bert4Rec.data import Inputs, TrainDataset, make_inputs
from Bert4Rec.model import Bert4Rec, Bert4RecConfig
from Bert4Rec.module import Bert4RecModule
from Bert4Rec.options import Config
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from seqrec.nn.geometry import transform_vectors
from seqrec.nn.item_table import GivenVectors, TableOptions
from seqrec.nn.losses import Loss, LossOptions
from seqrec.training.checkpoints import load_state
from tests.conftest import write_dataset
from tests.histories import as_histories, random_lists
from tests.id_family_runs import IdFamilyRuns
from tests.interrupted import Command
from tests.repeating import assert_a_run_learns_it, assert_scores_what_is_had
from tests.sampled_steps import assert_reads_what_it_names

# Under these the tiny dataset's run stops early.
FLAGS = (
    *("--num_epochs", "30", "--patience", "4", "--batch_size", "32", "--hidden_units", "16", "--lr", "0.003"),
    *("--schedule", "linear", "--warmup_steps", "5"),
)
MAXLEN = 8
LENGTHS = [1, 8, 3, 2, 20, 7, 1, 5]


@pytest.fixture(scope="module", params=[False, True], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Bert4Rec:
    torch.manual_seed(0)
    config = Bert4RecConfig(hidden_units=12, num_heads=3, maxlen=MAXLEN, untied_output=request.param)
    model = Bert4Rec(30, config).eval()
    for parameter in model.parameters():  # larger than at the start, so that every part matters
        nn.init.normal_(parameter, mean=0.2, std=0.3)
    return model.requires_grad_(False)


def run_model(model: Bert4Rec, inputs: Inputs) -> Tensor:
    out: Tensor = model(inputs.items, inputs.masked, inputs.positions, inputs.layout, inputs.asked, inputs.asked_layout)
    return out


def predict(model: Bert4Rec, lists: list[list[int]]) -> Tensor:
    """Return what the event after each history is predicted with."""
    inputs = make_inputs(as_histories(lists), np.arange(len(lists)), MAXLEN)
    return run_model(model, inputs)[inputs.order]


def predict_plainly(model: Bert4Rec, items: list[int], masked: list[bool]) -> Tensor:
    """Return (L, D) by the paper's equations for one sequence, every event computed, with torch's own attention."""
    weights, width = model.state_dict(), model.config.hidden_units
    x = weights["item_embedding.weight"][items]
    x[torch.tensor(masked)] = weights["mask_embedding"]
    x = norm(x + weights["position_embedding.weight"][MAXLEN - len(items) :], weights, "input_norm")
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
        mixed, _ = attention(x[None], x[None], x[None], need_weights=False)
        x = norm(x + mixed[0], own, "attention_norm")
        inner = gelu(x @ own["feed_forward_in.weight"].T + own["feed_forward_in.bias"])
        x = norm(x + inner @ own["feed_forward_out.weight"].T + own["feed_forward_out.bias"], own, "feed_forward_norm")
    x = norm(gelu(x @ weights["output.weight"].T + weights["output.bias"]), weights, "output_norm")
    return torch.cat([x, torch.ones(len(x), 1)], dim=1) if model.config.untied_output else x


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@torch.no_grad()
def test_equals_the_papers_equations(model: Bert4Rec) -> None:
    lists = random_lists(LENGTHS)
    for ours, history in zip(predict(model, lists), lists, strict=True):
        items = [*history[-(MAXLEN - 1) :], 0]
        expected = predict_plainly(model, items, [False] * (len(items) - 1) + [True])
        torch.testing.assert_close(ours, expected[-1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_training_equals_the_papers_equations(model: Bert4Rec) -> None:
    train = make_train(random_lists([2, 8, 3, 5, 20, 7]), mask_prob=0.5)
    batch = train[BatchKey(np.arange(6), 0, 0)]
    inputs, out = batch.inputs, run_model(model, batch.inputs)
    asked = set(inputs.asked.tolist())
    rows = []
    for begin, end in zip(inputs.layout.offsets[:-1].tolist(), inputs.layout.offsets[1:].tolist(), strict=True):
        whole = predict_plainly(model, inputs.items[begin:end].tolist(), inputs.masked[begin:end].tolist())
        rows += [whole[i] for i in range(end - begin) if begin + i in asked]
    torch.testing.assert_close(out, torch.stack(rows), rtol=1e-5, atol=1e-5)


def test_alone_as_in_any_batch(model: Bert4Rec) -> None:
    lists = random_lists(LENGTHS)
    together = predict(model, lists)
    for row, history in enumerate(lists):
        torch.testing.assert_close(predict(model, [history])[0], together[row], rtol=1e-5, atol=5e-6)
    order = [5, 1, 0, 7]
    torch.testing.assert_close(predict(model, [lists[i] for i in order]), together[order], rtol=1e-5, atol=1e-6)


def test_hidden_items_are_not_read(model: Bert4Rec) -> None:
    inputs = make_train(random_lists([2, 8, 3, 5, 20, 7]), mask_prob=0.5)[BatchKey(np.arange(6), 0, 0)].inputs
    assert inputs.masked.any()
    other = torch.where(inputs.masked, inputs.items % 30 + 1, inputs.items)
    assert torch.equal(run_model(model, inputs), run_model(model, inputs._replace(items=other)))


def test_every_known_event_is_read(model: Bert4Rec) -> None:
    (history,) = random_lists([MAXLEN - 1])
    before = predict(model, [history])
    for changed in range(MAXLEN - 1):
        other = [*history[:changed], history[changed] % 30 + 1, *history[changed + 1 :]]
        assert (predict(model, [other]) - before).abs().max() > 1e-4
    assert torch.equal(predict(model, [[1, 2, 3, *history]]), before)  # and none before the most recent ones


def given_vectors(width: int) -> GivenVectors:
    vectors = np.random.default_rng(0).normal(size=(31, width)).astype(np.float32)
    return GivenVectors(vectors, np.ones(31, dtype=bool), TableOptions())


def make_train(
    lists: list[list[int]], mask_prob: float = 0.2, last_only_prob: float = 0.0, loss: Loss = "ce", seed: int = 0
) -> TrainDataset:
    options = LossOptions(loss, 256 if loss in ("ce", "bce") else 7)
    return TrainDataset(as_histories(lists), 30, MAXLEN, mask_prob, last_only_prob, options, seed)


def test_inputs_by_hand() -> None:
    inputs = make_inputs(as_histories([[4], [1, 2, 3]]), np.array([0, 1]), 3)
    assert inputs.items.tolist() == [2, 3, 0, 4, 0]  # longest first; the 2 most recent events and a hidden one
    assert inputs.masked.tolist() == [False, False, True, False, True]
    assert inputs.positions.tolist() == [0, 1, 2, 1, 2]
    assert inputs.asked.tolist() == [2, 4]
    assert inputs.layout.offsets.tolist() == [0, 3, 5]
    assert inputs.asked_layout.offsets.tolist() == [0, 1, 2]
    assert inputs.order.tolist() == [1, 0]


def test_what_is_hidden() -> None:
    lists = random_lists([6] * 3000)
    train = make_train(lists, mask_prob=0.3)
    key = BatchKey(np.arange(3000), epoch=0, number=0)
    batch = train[key]
    truth = torch.tensor(lists).flatten()
    asked, inputs = batch.inputs.asked, batch.inputs
    assert torch.equal(batch.targets, truth[asked])
    assert len(asked) / len(truth) == pytest.approx(0.3 + 0.7**6 / 6, abs=0.01)  # at least one of each sequence
    assert inputs.asked_layout.offsets.diff().min() == 1
    untouched = torch.ones(len(truth), dtype=torch.bool)
    untouched[asked] = False
    assert torch.equal(inputs.items[untouched], truth[untouched])
    assert not inputs.masked[untouched].any()
    # Of the asked ones 80 % are hidden, 10 % stand as they are, 10 % are replaced, by the same item once in 30.
    hidden = inputs.masked[asked]
    kept = ~hidden & (inputs.items[asked] == batch.targets)
    assert hidden.double().mean() == pytest.approx(0.8, abs=0.015)
    assert kept.double().mean() == pytest.approx(0.1 + 0.1 / 30, abs=0.015)
    assert torch.equal(train[key].targets, batch.targets)
    assert not torch.equal(train[key._replace(epoch=1)].inputs.asked, asked)


def test_some_sequences_ask_only_for_the_last() -> None:
    inputs = make_train(random_lists([5] * 50), mask_prob=0.9, last_only_prob=1)[BatchKey(np.arange(50), 0, 0)].inputs
    assert inputs.asked.tolist() == list(range(4, 250, 5))


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
def test_negatives(loss: Loss) -> None:
    lists = random_lists([12] * 20)
    train = make_train(lists, loss=loss)
    batch = train[BatchKey(np.arange(20), epoch=1, number=2)]
    negatives = batch.negatives.items
    if loss == "bce":
        counts = batch.inputs.asked_layout.offsets.diff().numpy()
        rows = np.repeat(np.arange(20), counts)
        assert all(item not in lists[row] for row, item in zip(rows, negatives.tolist(), strict=True))
    else:
        assert len(negatives.unique()) == 7
    assert 1 <= negatives.min() <= negatives.max() <= 30


def test_given_vectors_are_read_and_score() -> None:
    model = Bert4Rec(30, Bert4RecConfig(hidden_units=12), given_vectors(12)).eval()
    assert torch.equal(model.item_vectors(), model.item_embedding.weight)
    hidden = predict(model, [[1, 2]])
    model.item_embedding.weight.data[2] += 1
    assert not torch.equal(predict(model, [[1, 2]]), hidden)


def test_an_untied_output_scores_with_its_own_table_and_bias() -> None:
    model = Bert4Rec(30, Bert4RecConfig(hidden_units=12, untied_output=True), given_vectors(12))
    vectors = model.item_vectors().detach()
    assert vectors.shape == (31, 13)
    assert not vectors[0].any()
    assert vectors[1:, :12].std().item() == pytest.approx(0.02, rel=0.1)
    assert not vectors[:, 12].any()  # biases start at 0
    assert predict(model.eval(), [[1, 2]])[:, 12].tolist() == [1]


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="--hidden_units 10 must be a multiple of --num_heads 4"):
        Bert4RecConfig(hidden_units=10, num_heads=4)
    with pytest.raises(ValueError, match=r"--dropout_rate must lie in \[0, 1\), got 1"):
        Bert4RecConfig(dropout_rate=1)
    with pytest.raises(ValueError, match="--num_blocks must be at least 1, got 0"):
        Bert4RecConfig(num_blocks=0)
    with pytest.raises(ValueError, match="--maxlen must be at least 2, got 1"):
        Bert4RecConfig(maxlen=1)
    with pytest.raises(ValueError, match="--init_mode frozen with --init_type none would keep item vectors random"):
        Config(table=TableOptions(freeze_items=True))
    with pytest.raises(ValueError, match=r"--mask_prob must lie in \(0, 1\).* got 1 and 0.1"):
        Config(mask_prob=1)
    with pytest.raises(ValueError, match="no training sequence has 2 items"):
        make_train([[1], [2]])


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
@pytest.mark.parametrize("untied", [False, True])
def test_a_sampled_loss_reads_what_it_names(loss: Loss, untied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = LossOptions(loss, 256 if loss == "bce" else 6)
    config = Config(objective=objective, model=Bert4RecConfig(8, dropout_rate=0.0, untied_output=untied))
    train = TrainDataset(as_histories(random_lists([9, 4, 2])), 30, MAXLEN, 0.4, 0.0, objective, seed=0)
    batch, module = train[BatchKey(np.arange(3), 0, 0)], Bert4RecModule(config, 30, None)
    assert_reads_what_it_names(module, batch, 30, monkeypatch)


@pytest.mark.parametrize("untied", [False, True])
def test_a_score_of_what_is_had(untied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[3, 1, 3, 3], [2, 4], [5, 5], [1, 2, 3, 2, 1, 7, 8, 9, 9, 4, 5, 6], [4, 6, 5, 4, 4, 6]]
    module = Bert4RecModule(
        Config(repeat_score=True, model=Bert4RecConfig(8, maxlen=MAXLEN, dropout_rate=0.0, untied_output=untied)),
        30,
        None,
    ).eval()
    assert_scores_what_is_had(
        module, as_histories(lists), [set(items[-(MAXLEN - 1) :]) for items in lists], monkeypatch
    )


def test_a_batch_tells_what_is_not_asked() -> None:
    lists = [[3, 1, 3, 4], [2, 4], [5, 5, 9], [1, 2, 3, 2, 1, 7, 8, 9, 9, 4, 5, 6]]
    train = TrainDataset(as_histories(lists), 30, MAXLEN, 0.4, 0.0, LossOptions(), seed=0, repeats=True)
    batch = train[BatchKey(np.arange(4), 0, 0)]
    assert batch.had is not None
    found = {(row, item) for row, item in zip(batch.had.rows.tolist(), batch.had.items.tolist(), strict=True)}
    expected, asked = set(), batch.inputs.asked.tolist()
    for start, end in pairwise(batch.inputs.layout.offsets.tolist()):
        own = [place for place in asked if start <= place < end]
        known = {int(batch.items[place]) for place in range(start, end) if place not in own}
        expected |= {(asked.index(place), item) for place in own for item in known}
    assert found == expected and 0 < len(found) == len(batch.had.rows)


def test_a_run_learns_the_score_of_what_is_had(tmp_path: Path) -> None:
    assert_a_run_learns_it("Bert4Rec", FLAGS, tmp_path)
    with pytest.raises(UserError, match="--repeat_score is for --loss ce"):
        Config(repeat_score=True, objective=LossOptions("bce"))


class TestRuns(IdFamilyRuns):
    """Whole runs."""

    family, flags = "Bert4Rec", FLAGS


@pytest.mark.parametrize(
    "flags",
    [
        ("--loss", "bce"),
        ("--loss", "gbce"),
        ("--loss", "sampled_softmax"),
        ("--untied_output",),
        ("--architecture", "published"),
    ],
)
def test_other_losses_train(flags: tuple[str, ...], tiny_path: Path, tmp_path: Path) -> None:
    command = Command("Bert4Rec", tiny_path, tmp_path, (*FLAGS, "--num_epochs", "30", "--patience", "30", *flags))
    command.run()
    curve = (command.folder / "logs" / "metrics.csv").read_text().splitlines()
    column = curve[0].split(",").index("train/loss")
    losses = [float(line.split(",")[column]) for line in curve[1:]]
    assert losses[-1] < losses[0] - 0.01
    assert not load_state(command.folder / "checkpoints" / "last.ckpt")["model.item_embedding.weight"][0].any()


def test_frozen_vectors_stay(tiny: Dataset, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(41, 24)).astype(np.float32)
    vectors[0] = 0
    save_embeddings(embedding_path(tiny, "own", tmp_path), vectors, tiny, Producer("test", None, {}))
    where = ("--init_type", "own", "--embedding_dir", str(tmp_path), "--untied_output", "--freeze_items")
    command = Command("Bert4Rec", tiny.path, tmp_path / "runs", (*FLAGS, *where, "--num_epochs", "2"), "own")
    command.run()
    state = load_state(command.folder / "checkpoints" / "last.ckpt")
    table = state["model.item_embedding.weight"].numpy()
    np.testing.assert_array_equal(
        table, transform_vectors(vectors, ("standardise",), np.ones(41, dtype=bool), 16, 0.02)
    )
    assert state["model.output_bias"][1:].any()
    assert not state["model.output_embedding.weight"][0].any()
    cost = command.metrics()["cost"]
    assert cost["parameters"] - cost["trainable_parameters"] == 41 * 24


def test_learns_a_cycle(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    starts, lengths = generator.integers(0, 25, 150), generator.integers(4, 12, 150)
    histories = [[(start + step) % 25 + 1 for step in range(n)] for start, n in zip(starts, lengths, strict=True)]
    path = write_dataset(tmp_path / "cycle", histories, 25)
    flags = ("--num_epochs", "40", "--patience", "40", "--batch_size", "16", "--hidden_units", "32", "--lr", "0.003")
    sure = ("--dropout_rate", "0", "--last_only_prob", "0.5")  # the rule has no exception, so nothing is overfitted
    command = Command("Bert4Rec", path, tmp_path / "runs", (*flags, *sure))
    command.run()
    assert command.metrics()["test"]["Recall@1"] > 0.9
