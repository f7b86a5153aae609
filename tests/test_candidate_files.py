"""Given candidates: ranks against them equal a slow count, from JSON and from the published pickle."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.batches import BatchKey
from seqrec.data.candidate_files import describe_candidates, load_candidates
from seqrec.data.dataset import Dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.evaluation.candidates import sample_negatives
from seqrec.evaluation.ranking import rank_targets
from seqrec.training.batches import HeldOutDataset

K = 7


@pytest.fixture(scope="module")
def lists(tiny: Dataset) -> dict[int, list[int]]:
    drawn = sample_negatives(tiny, np.arange(tiny.num_users), K, seed=3)
    return dict(enumerate(drawn.tolist()))


def write_json(path: Path, lists: dict[int, list[int]], dataset: Dataset, **changes: Any) -> Path:
    users, items = dataset.user_table()["raw_id"], dataset.item_table()["raw_id"]
    content = {users[user]: [items[item - 1] for item in row] for user, row in lists.items()}
    path.write_text(json.dumps(content | changes))
    return path


def test_both_forms_give_each_user_s_items(tiny: Dataset, lists: dict[int, list[int]], tmp_path: Path) -> None:
    shuffled = dict(sorted(lists.items(), key=lambda entry: -entry[0]))
    path = write_json(tmp_path / "c.json", shuffled, tiny)
    assert load_candidates(path, tiny).tolist() == [lists[user] for user in range(tiny.num_users)]
    assert describe_candidates(path)[0] == K
    # The published pickle has users and items by number; users of this dataset have other ids.
    (tmp_path / "sample_size7-seed98765.pkl").write_bytes(pickle.dumps(shuffled))
    with pytest.raises(UserError, match=r"user 89 is not in .*are both from one preparation"):
        load_candidates(tmp_path / "sample_size7-seed98765.pkl", tiny)


def test_the_published_pickle_of_numbered_users(tmp_path: Path) -> None:
    from seqrec.data.dataset import load_dataset
    from seqrec.data.preparation import prepare
    from seqrec.data.sources.pickled import Pickled

    users = {7: [3, 1, 4, 2], 2: [1, 5, 2, 3], 9: [2, 4, 5, 6]}
    content = {
        "train": {user: items[:2] for user, items in users.items()},
        "val": {user: [items[2]] for user, items in users.items()},
        "test": {user: [items[3]] for user, items in users.items()},
        "smap": {f"item {number}": number for number in range(1, 7)},
    }
    (tmp_path / "dataset.pkl").write_bytes(pickle.dumps(content))
    dataset = load_dataset(prepare(Pickled(name="published", data_dir=tmp_path, input=tmp_path / "dataset.pkl")))
    negatives = {2: [4, 6], 7: [6, 5], 9: [1, 3]}
    path = tmp_path / "random-sample_size2-seed98765.pkl"
    path.write_bytes(pickle.dumps(negatives))
    found = load_candidates(path, dataset)
    for row, raw_id in enumerate(dataset.user_table()["raw_id"]):
        assert found[row].tolist() == negatives[int(raw_id)]


def test_ranks_are_those_against_the_given_items(tiny: Dataset, lists: dict[int, list[int]], tmp_path: Path) -> None:
    protocol = EvaluationProtocol(candidates=write_json(tmp_path / "c.json", lists, tiny))
    test = protocol.hold_out(tiny).test
    data = HeldOutDataset(tiny, test, protocol, lambda histories, rows: None)
    rows = np.arange(len(test))[::-1].copy()
    batch = data[BatchKey(rows, 0, 0)]
    generator = torch.Generator().manual_seed(0)
    users, catalogue = (torch.randn(n, 4, generator=generator) for n in (len(rows), tiny.num_items + 1))
    ranks = rank_targets(users, catalogue, batch.targets, negatives=batch.negatives).ranks
    for at, row in enumerate(rows):
        scores = catalogue @ users[at]
        user, target = int(test.users[row]), int(test.targets[row])
        assert int(ranks[at]) == sum(bool(scores[item] > scores[target]) for item in lists[user])
    assert protocol.record["sample_size"] == K
    assert protocol.record["candidates_sha256"] == describe_candidates(protocol.candidates)[1]  # type: ignore[arg-type]
    assert "candidates_sha256" not in EvaluationProtocol(sample_size=K).record


def test_files_that_do_not_fit_are_refused(tiny: Dataset, lists: dict[int, list[int]], tmp_path: Path) -> None:
    first, items = tiny.user_table()["raw_id"][0], tiny.item_table()["raw_id"]
    own = items[int(tiny.items[0]) - 1]
    row = [items[item - 1] for item in lists[0]]
    for changes, message in (
        ({"stranger": row}, "user 'stranger' is not in"),
        ({first: ["nothing", *row[1:]]}, "item 'nothing' is none of the 40 items"),
        ({first: [own, *row[1:]]}, f"'{own}', a negative of user '{first}', is an item that the user has"),
        ({first: [row[1], *row[1:]]}, "is named twice for the user"),
        ({first: row[1:]}, "all of one length"),
        ({first: [1] * K}, "a list of items, str, all of one length"),
        ({first: "text"}, "a list of items, str, all of one length"),
    ):
        with pytest.raises(UserError, match=message):
            load_candidates(write_json(tmp_path / "bad.json", lists, tiny, **changes), tiny)
    for name, content, message in (
        ("empty.json", b"{}", "expected an object"),
        ("broken.json", b"{", "broken.json"),
        ("code.pkl", b"cos\nsystem\n(S'true'\ntR.", "can't be read as a pickle of dict, list, int and str"),
        ("list.txt", b"", "must end in .json or .pkl"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            EvaluationProtocol(candidates=tmp_path / name)
    with pytest.raises(MissingFileError, match=r"absent.json does not exist"):
        EvaluationProtocol(candidates=tmp_path / "absent.json")
    whole = write_json(tmp_path / "whole.json", lists, tiny)
    for options in ({"sample_size": 5}, {"filter_seen": True}, {"split": "global_time", "time_target": "successive"}):
        with pytest.raises(UserError, match="--candidates FILE is not for"):
            EvaluationProtocol(candidates=whole, **options)
    fewer = {user: lists[user] for user in list(lists)[1:]}
    protocol = EvaluationProtocol(candidates=write_json(tmp_path / "fewer.json", fewer, tiny))
    with pytest.raises(UserError, match=f"lacks 1 users to rank, such as '{first}'"):
        HeldOutDataset(tiny, protocol.hold_out(tiny).test, protocol, lambda histories, rows: None)
