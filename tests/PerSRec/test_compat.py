"""--compat published: the flaws of the published code, by their descriptions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from PerSRec.data import HistoryDataset, TrainBatch, closing_events, make_inputs, make_reader
from PerSRec.memory import compress_histories, old_events
from PerSRec.module import PerSRecModule
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.splits import leave_one_out
from seqrec.nn.losses import LossOptions
from seqrec.nn.segments import Group, Window, insert_tokens, newest_events, recent_events
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests.histories import as_histories, random_lists
from tests.interrupted import Command
from tests.PerSRec.equations import by_the_equations, model_of

NCE = LossOptions(loss="nce", num_negatives=7, temp=0.05)
PUBLISHED = ModelOptions(hidden_units=8, compat="published")
WINDOW = Window(9, (Group(5, 2),))


def module_of(history: HistoryOptions) -> tuple[PerSRecModule, Config]:
    config = Config(history=history, model=PUBLISHED, objective=NCE)
    module = PerSRecModule(config, 30, None).eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module, config


def test_sums_are_divided_by_the_places_that_ask() -> None:
    model, lists = model_of(WINDOW, compat="published"), random_lists([9, 4, 7, 12])
    histories, rows = as_histories(lists), np.array([3, 0, 2, 1])  # by length
    old = old_events(histories, WINDOW)
    kept = compress_histories(model.encoder, model.item_embedding, old, np.zeros(4, np.int64))["memory"]
    items, offsets = histories.gather(rows, WINDOW.num_recent)
    lengths = np.diff(offsets)
    read = recent_events(lengths, WINDOW)
    vectors, memory = model.item_embedding(torch.from_numpy(items)), torch.from_numpy(kept[rows])
    found = model.encoder(vectors, read, None, newest_events(read, lengths, WINDOW), memory)
    whole = make_inputs(histories, rows, WINDOW)
    at_once = model.encoder(model.item_embedding(whole.items), whole.rows, None, whole.newest)[whole.order]
    divisors = torch.tensor([7.0] * 7 + [4.0] * 4)  # five old places and two tokens ask, then four recent ones
    for user, row in enumerate(rows):
        seconds = torch.zeros(9)
        expected, _ = by_the_equations(model, lists[row][-9:], seconds, divisors=divisors)
        assert torch.allclose(found[user], expected[-1], atol=1e-5)
        expected, _ = by_the_equations(model, lists[row][-9:], seconds)
        assert torch.allclose(at_once[user], expected[-1], atol=1e-5)
    assert not torch.allclose(found, at_once, atol=1e-3)


@pytest.mark.parametrize(
    ("insert_method", "expected"),
    [
        ("0", [(1, 2), (2, 3), (3, 4), (4, 5), (5, "U0"), (6, 7), (7, 8), (8, 9), (8, 9), (9, 3)]),
        ("[[3, 1], [5, 1]]", [(1, 2), (2, 3), (3, "U0"), (4, 5), (5, "U1"), (6, 7), (7, 8), (8, 9), (8, 9), (9, 3)]),
    ],
)
def test_the_last_old_event_predicts_a_token(insert_method: str, expected: list[tuple[int, Any]]) -> None:
    torch.manual_seed(0)
    history = HistoryOptions(maxlen=8, number_of_user_tokens=2, pretrain_item_num=5, insert_method=insert_method)
    module, config = module_of(history)
    lists = [list(range(1, 10)), [8, 9, 3]]
    batch = HistoryDataset(make_reader(config, as_histories(lists), 31), config)[BatchKey(np.arange(2), 0, 0)]
    assert isinstance(batch, TrainBatch)
    classes = module.item_vectors()
    grown, targets = module.choose_classes(batch, classes, batch.targets)
    names = {len(classes) + token: f"U{token}" for token in range(2)}
    pairs = [(item, names.get(target, target)) for item, target in zip(batch.items.tolist(), targets.tolist())]  # noqa: B905
    assert pairs == expected
    assert module.encoder.tokens is not None
    torch.testing.assert_close(grown[len(classes) :], F.normalize(module.encoder.tokens, dim=1))
    # The loss, by brute force: a token is no negative of others.
    hidden = module._scaled(module.predict(batch, batch.items, module.model.item_embedding.vectors()))
    losses = []
    for vector, target in zip(hidden, targets.tolist(), strict=True):
        others = [n for n in batch.negatives.items.tolist() if n != target]
        table = module.model.item_embedding.vectors()
        own = grown[target] if target >= len(classes) else F.normalize(table[target], dim=0)
        wrong = [v for v in F.normalize(table[others], dim=1) if (own @ v).item() <= 0.99]
        losses.append(-torch.log_softmax(torch.stack([own, *wrong]) @ vector, dim=0)[0])
    torch.testing.assert_close(module.training_step(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_no_event_of_another_history_closes_a_segment() -> None:
    # The second history has no old event: before its tokens stands the last row of the first.
    window = Window(4, (Group(2, 1),))
    rows = insert_tokens(np.array([4, 2]), window)
    assert [part.tolist() for part in closing_events(rows, window)] == [[1], [0]]


def test_the_catalogue_has_an_item_that_never_occurs(tiny_path: Path, tmp_path: Path) -> None:
    module, _ = module_of(HistoryOptions(maxlen=8))
    assert len(module.model.item_embedding.vectors()) == 32 and len(module.item_vectors()) == 31
    flags = ("--compat", "published", "--loss", "nce", "--num_negatives", "20", "--hidden_units", "16", "--maxlen", "6")
    command = Command("PerSRec", tiny_path, tmp_path, (*flags, "--num_epochs", "2", "--lr", "0.03"))
    command.run()
    dataset, recommender = load_run(command.folder, tiny_path)
    test = leave_one_out(dataset).test
    for rows, items, scores in recommend(recommender, test, dataset.num_items, True, 500, "cpu"):
        assert (np.sort(items) == np.arange(1, dataset.num_items + 1)).all()  # which is not recommended
        own = np.take_along_axis(scores, (items == test.targets[rows][:, None]).argmax(1)[:, None], axis=1)
        close = 1e-5 * np.abs(scores).max()
        ranks = np.load(command.folder / "ranks-test.npy")[test.users[rows]]
        assert ((scores > own + close).sum(axis=1) <= ranks).all()
        assert (ranks <= (scores >= own - close).sum(axis=1)).all()  # but ranked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": LossOptions(temp=0.05)}, "is for --loss nce and --temp"),
        ({"objective": LossOptions(loss="nce")}, "is for --loss nce and --temp"),
        ({"objective": NCE, "init_type": "longformer"}, "has an item without a vector: drop --init_type"),
    ],
)
def test_what_the_published_code_has_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(model=PUBLISHED, **options)
