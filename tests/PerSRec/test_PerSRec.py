"""PerSRec: the equations with their mask, compression, cut histories, losses, learning, resuming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from PerSRec.data import HistoryDataset, TrainBatch, cut_histories, make_inputs, make_reader
from PerSRec.module import PerSRecModule
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Histories
from seqrec.nn.losses import LossOptions, catalogue_loss
from seqrec.nn.ragged import cut_by_length, make_layout
from seqrec.nn.segments import Group, Window
from seqrec.training.checkpoints import load_state
from tests.histories import as_histories, random_lists
from tests.id_family_runs import IdFamilyRuns
from tests.interrupted import Command
from tests.PerSRec.equations import by_the_equations, model_of, sees
from tests.recommending import assert_recommends_as_it_was_tested
from tests.repeating import assert_scores_what_is_had

FLAGS = (
    *("--num_epochs", "30", "--patience", "4", "--batch_size", "32", "--hidden_units", "16", "--lr", "0.03"),
    *("--maxlen", "6", "--number_of_user_tokens", "2", "--pretrain_item_num", "3"),
)
NONE, ONE, TWO = Window(9), Window(9, (Group(5, 2),)), Window(9, (Group(3, 1), Group(6, 2)))
LENGTHS = [9, 1, 12, 4, 7, 2, 9, 6, 5]


def test_the_rule_is_the_published_table() -> None:
    rows = ["1", "11", "111", "1111", "11111", "111111", "1111111", "00000111", "000001111", "0000011111"]
    expected = torch.tensor([[int(x) for x in row.ljust(10, "0")] for row in rows], dtype=torch.bool)
    assert torch.equal(sees(Window(8, (Group(5, 2),))), expected)
    rows = ["1", "11", "111", "1111", "00011", "000111", "0001111", "00011111", "000100011", "0001000111"]
    expected = torch.tensor([[int(x) for x in row.ljust(10, "0")] for row in rows], dtype=torch.bool)
    assert torch.equal(sees(Window(8, (Group(3, 1), Group(6, 1)))), expected)


MODELS: list[dict[str, Any]] = [
    {"model": "hstu", "time_bias": True},
    {"model": "hstu", "enable_relative_attention_bias": False},
    {"model": "sasrec"},
    {"model": "sasrec", "block": "sasrec"},
    {"model": "sasrec", "block": "ligr"},
    {"model": "llama"},
]
NAMES = ["hstu", "hstu without bias", "sasrec", "SASRec's blocks", "ligr blocks", "llama"]


def timed(lists: list[list[int]]) -> Histories:
    """Return histories with times, some of them equal."""
    histories = as_histories(lists)
    steps = np.random.default_rng(1).choice([0, 30, 4000, 10**6], len(histories.items))
    return Histories(histories.items, histories.users, histories.starts, histories.ends, np.cumsum(steps))


@pytest.mark.parametrize("window", [NONE, ONE, TWO], ids=["no tokens", "one group", "two groups"])
@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_outputs_are_the_equations(window: Window, options: dict[str, Any]) -> None:
    model, lists = model_of(window, **options), random_lists(LENGTHS)
    histories = timed(lists)
    inputs = make_inputs(histories, np.arange(len(lists)), window, timed=True)
    seconds = inputs.seconds if options.get("time_bias") else None
    vectors = model.item_embedding(inputs.items)
    newest = model.encoder(vectors, inputs.rows, seconds, inputs.newest)[inputs.order]
    lengths = np.minimum(LENGTHS, 9)
    every = model.encoder(vectors, inputs.rows, seconds).split(np.sort(lengths)[::-1].tolist())
    for user, history in enumerate(lists):
        times = torch.from_numpy(histories.gather_times(np.array([user]), 9))
        expected, event = by_the_equations(model, history[-9:], times)
        assert torch.allclose(every[int(inputs.order[user])], expected[event], atol=1e-5)
        assert torch.allclose(newest[user], expected[-1], atol=1e-5)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_what_is_old_reaches_what_is_recent_through_tokens_alone(options: dict[str, Any]) -> None:
    model = model_of(ONE, **options)
    histories = timed(random_lists([9]))
    inputs = make_inputs(histories, np.arange(1), ONE, timed=True)
    seconds = inputs.seconds if options.get("time_bias") else None
    vectors = model.item_embedding(inputs.items)

    def outputs(changed: int | None = None) -> Tensor:
        given = vectors.clone()
        if changed is not None:
            given[changed] *= -3.0  # a norm would undo an added constant
        found: Tensor = model.encoder(given, inputs.rows, seconds)
        return found

    before = outputs()
    for place in range(9):
        differs = ~torch.isclose(outputs(place), before, atol=1e-7).all(1)
        assert differs.tolist() == [event >= place for event in range(9)]
    for name, parameter in model.encoder.named_parameters():  # tokens whose values are 0 carry nothing
        if "key_value" in name:
            parameter[-model.encoder.width :] = 0
        elif "v_proj" in name:
            parameter.zero_()
    before = outputs()
    assert torch.equal(outputs(2)[5:], before[5:]) and not torch.equal(outputs(2)[2:5], before[2:5])


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_tokens_that_are_apart_have_the_mean_of_what_they_close(options: dict[str, Any]) -> None:
    window = Window(9, (Group(3, 1), Group(6, 2)), apart=True)
    model, lists = model_of(window, **options), random_lists(LENGTHS)
    histories, encoder = timed(lists), model.encoder
    inputs = make_inputs(histories, np.arange(len(lists)), window, timed=True)
    seconds = inputs.seconds if options.get("time_bias") else None
    vectors = model.item_embedding(inputs.items)
    found = encoder(vectors, inputs.rows, seconds, inputs.newest)[inputs.order]
    entered = encoder.with_tokens(vectors, inputs.rows)[inputs.rows.tokens][inputs.order]  # (B, 3, D)
    assert encoder.tokens is not None
    for user, history in enumerate(lists):
        read = history[-9:]
        table, n = model.item_embedding.weight, len(read)
        parts = [read[max(0, n - 9 + a) : max(0, n - 9 + b)] for a, b in ((0, 3), (3, 6), (3, 6))]
        for token, part in enumerate(parts):
            mean = table[part].mean(0) if part else torch.zeros(encoder.width)
            assert torch.allclose(entered[user, token], encoder.tokens[token] + mean, atol=1e-6)
    if seconds is None:  # through the mean alone: in a segment the order of old events is of no account
        mixed = [[*read[-9:][2::-1], *read[-9:][5:2:-1], *read[-3:]] if len(read) >= 9 else read for read in lists]
        assert mixed != lists
        inputs = make_inputs(as_histories(mixed), np.arange(len(lists)), window)
        again = encoder(model.item_embedding(inputs.items), inputs.rows, None, inputs.newest)[inputs.order]
        assert torch.allclose(again, found, atol=1e-5)


@pytest.mark.parametrize("block", ["sasrec", "ligr"])
def test_without_tokens_the_blocks_are_those_that_families_share(block: Any) -> None:
    model = model_of(NONE, model="sasrec", block=block)
    lists = random_lists([9, 7, 4, 4, 1])
    inputs = make_inputs(as_histories(lists), np.arange(5), NONE)
    vectors = model.item_embedding(inputs.items)
    encoder: Any = model.encoder
    lengths = np.array([9, 7, 4, 4, 1])
    layout = make_layout(lengths, cut_by_length(lengths))
    x = encoder.places(inputs.rows.places) + vectors * 8**0.5
    for part in encoder.blocks:
        x = part.block(x, layout)
    torch.testing.assert_close(encoder(vectors, inputs.rows), encoder.last_norm(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_recent_events_are_read_alone(options: dict[str, Any]) -> None:
    model, lists = model_of(TWO, **options), random_lists(LENGTHS)
    histories, is_timed = timed(lists), bool(options.get("time_bias"))
    inputs = make_inputs(histories, np.arange(len(lists)), TWO, is_timed, only_recent=True)
    found = model.encoder(model.item_embedding(inputs.items), inputs.rows, inputs.seconds, inputs.newest)[inputs.order]
    for user, history in enumerate(lists):
        times = torch.from_numpy(histories.gather_times(np.array([user]), 3))
        expected, _ = by_the_equations(model, history[-3:], times, tokens_seen=False)
        assert torch.allclose(found[user], expected[-1], atol=1e-5)


@pytest.mark.parametrize("options", MODELS, ids=NAMES)
def test_a_history_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    model, lists = model_of(ONE, **options), random_lists(LENGTHS)
    histories = timed(lists)
    is_timed = bool(options.get("time_bias"))

    def newest(rows: list[int]) -> Tensor:
        inputs = make_inputs(histories, np.array(rows), ONE, timed=is_timed)
        found: Tensor = model.encoder(model.item_embedding(inputs.items), inputs.rows, inputs.seconds, inputs.newest)
        return found[inputs.order]

    together = newest(list(range(len(lists))))
    for row in range(len(lists)):
        assert torch.allclose(newest([row])[0], together[row], atol=1e-6)


def test_long_histories_are_cut_from_their_end() -> None:
    train = as_histories([list(range(1, 24)), [1, 2, 3], list(range(1, 9))])

    def cut(**options: Any) -> list[list[int]]:
        found = cut_histories(train, HistoryOptions(maxlen=6, **options))
        return [found.gather(np.array([row]), 99)[0].tolist() for row in range(len(found))]

    assert cut() == [
        *([3, 4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22, 23]),
        *([1, 2, 3], [2, 3, 4, 5, 6, 7, 8]),
    ]
    assert cut(train_feat_max_length=10) == [
        *([4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
        *([1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8]),
    ]
    assert cut(data_split=False) == [list(range(1, 24)), [1, 2, 3], list(range(1, 9))]


def test_targets_are_the_next_items_across_the_tokens() -> None:
    lists = [list(range(1, 9)), [4, 9]]
    options = HistoryOptions(maxlen=6, number_of_user_tokens=2, pretrain_item_num=4)
    config = Config(history=options)
    data = HistoryDataset(make_reader(config, as_histories(lists), 30), config)
    batch = data[BatchKey(np.arange(2), 0, 0)]
    assert isinstance(batch, TrainBatch)
    assert list(zip(batch.items.tolist(), batch.targets.tolist(), strict=True)) == [
        *((2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (4, 9)),
    ]
    assert batch.rows.places[batch.rows.events].tolist() == [0, 1, 2, 3, 6, 7, 7]
    assert batch.rows.places[batch.rows.tokens].tolist() == [[4, 5], [4, 5]]


@pytest.mark.parametrize("loss", ["ce", "bce", "nce"])
def test_the_loss_of_recent_events_alone(loss: Any) -> None:
    histories = as_histories([list(range(1, 9)), [4, 9]])
    options = HistoryOptions(maxlen=6, number_of_user_tokens=2, pretrain_item_num=4, loss_on_all_items=False)
    config = Config(history=options, model=ModelOptions(hidden_units=8), objective=LossOptions(loss=loss, temp=0.05))
    module = PerSRecModule(config, 30, None).eval()
    reader = make_reader(config, histories, 30)
    batch = HistoryDataset(reader, config)[BatchKey(np.arange(2), 0, 0)]
    assert isinstance(batch, TrainBatch) and batch.asked is not None
    assert batch.asked.tolist() == [4, 5, 6] and batch.targets.tolist() == [7, 8, 9]
    whole = HistoryDataset(reader, replace(config, history=replace(options, loss_on_all_items=True)))
    every = whole[BatchKey(np.arange(2), 0, 0)]
    assert isinstance(every, TrainBatch)
    table = module.model.item_embedding.vectors()
    hidden = module._scaled(module.predict(every, every.items, table))[[4, 5, 6]]
    own = every.negatives.items[[4, 5, 6]] if loss == "bce" else every.negatives.items
    expected = catalogue_loss(
        config.objective, hidden, F.normalize(table, dim=1), batch.targets, own, every.negatives.log_chance, 30
    )
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert torch.allclose(module.training_step(batch), expected, atol=1e-6)


@pytest.mark.parametrize("asks_all", [True, False])
def test_a_score_of_what_is_had(asks_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[3, 1, 3, 3], [2, 4], [5, 5], [1, 2, 3, 2, 1, 7, 8, 9, 9, 4, 5, 6], [4, 6, 5, 4, 4, 6]]
    history = HistoryOptions(maxlen=8, number_of_user_tokens=2, pretrain_item_num=4, loss_on_all_items=asks_all)
    config = Config(history=history, model=ModelOptions(hidden_units=8), repeat_score=True)
    module = PerSRecModule(config, 30, None).eval()
    assert_scores_what_is_had(module, as_histories(lists), [set(items[-8:]) for items in lists], monkeypatch)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"loss_on_all_items": False}, "--no_loss_on_all_items are for --number_of_user_tokens K"),
        ({"pretrain_item_num": 3}, "are for --number_of_user_tokens K"),
        ({"number_of_user_tokens": 2}, "needs --pretrain_item_num"),
        ({"number_of_user_tokens": 2, "pretrain_item_num": 50}, r"must lie in 1\.\.49, below --maxlen, got 50"),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "recent_item_num": 30},
            "30 and --recent_item_num 30 must sum to --maxlen 50",
        ),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "insert_method": "[[10, 1]]"},
            "places 1 tokens, --number_of_user_tokens is 2",
        ),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "insert_method": "[[20, 1], [10, 1]]"},
            r"inserted after \[20, 10\] events: these numbers must ascend",
        ),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "insert_method": "[[10, 1], [50, 1]]"},
            "leaves no recent event of --maxlen 50",
        ),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "insert_method": "[[10, 0], [20, 2]]"},
            "after 10 events has 0: give 1 or more",
        ),
        (
            {"number_of_user_tokens": 2, "pretrain_item_num": 30, "insert_method": "after"},
            r"'after' must be 0 or pairs \[\[offset, k\], \.\.\.\]",
        ),
        ({"train_feat_max_length": 50}, "50 must be at least 51, one more than --maxlen 50"),
    ],
)
def test_contradictions_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HistoryOptions(**flags)


def test_tokens_need_two_blocks() -> None:
    tokens = HistoryOptions(number_of_user_tokens=2, pretrain_item_num=30)
    with pytest.raises(UserError, match="--number_of_user_tokens needs --n_layers 2 or more"):
        Config(history=tokens, model=ModelOptions(n_layers=1))


def test_a_dataset_without_times_is_refused() -> None:
    with pytest.raises(UserError, match="has no timestamps, only order: train without --time_bias"):
        make_reader(Config(model=ModelOptions(time_bias=True)), as_histories([[1, 2, 3]]), 30)
    with pytest.raises(UserError, match="it is for --model hstu with that bias"):
        ModelOptions(model="sasrec", time_bias=True)


class TestRuns(IdFamilyRuns):
    """Learning, resuming, repeating."""

    family = "PerSRec"
    flags = FLAGS


def test_the_temperature_is_learned(tiny_path: Path, tmp_path: Path) -> None:
    command = Command("PerSRec", tiny_path, tmp_path, (*FLAGS, "--learn_temp", "--num_epochs", "3"))
    command.run()
    learned = load_state(command.folder / "checkpoints" / "best.ckpt")["log_temp"]
    assert float(learned.exp()) != pytest.approx(0.05, abs=1e-5)
    assert_recommends_as_it_was_tested(command.folder, tiny_path)


def test_scores_may_be_plain_products(tiny_path: Path, tmp_path: Path) -> None:
    command = Command("PerSRec", tiny_path, tmp_path, (*FLAGS, "--temp", "None", "--num_epochs", "3"))
    command.run()
    assert_recommends_as_it_was_tested(command.folder, tiny_path)


def test_a_learned_temperature_needs_a_start() -> None:
    with pytest.raises(UserError, match="--learn_temp starts from --temp"):
        Config(learn_temp=True, objective=LossOptions())
