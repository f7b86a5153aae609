"""Compressed old events: equal to whole histories, updated user by user, refused where they are another model's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from PerSRec.memory import MixedInputs, checksums, make_memory, open_memory
from PerSRec.module import PerSRecModule
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.nn.repeats import had_by_history
from seqrec.text.encoding import weights_sha256
from tests import forked
from tests.conftest import write_dataset
from tests.histories import as_histories, random_lists
from tests.interrupted import Command

TWO_GROUPS = HistoryOptions(maxlen=9, number_of_user_tokens=3, pretrain_item_num=6, insert_method="[[3, 1], [6, 2]]")
APART = HistoryOptions(maxlen=9, number_of_user_tokens=1, pretrain_item_num=6, compressor="mean")
ONE_GROUP = HistoryOptions(maxlen=9, number_of_user_tokens=2, pretrain_item_num=5)
LENGTHS = [9, 1, 12, 4, 7, 2, 30, 6, 5]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    times = [[1000 * place * (user + 1) for place in range(n)] for user, n in enumerate(LENGTHS)]
    return load_dataset(write_dataset(tmp_path / "data", random_lists(LENGTHS), 30, timestamps=times))


def module_of(model: str, history: HistoryOptions = TWO_GROUPS, layers: int = 2) -> PerSRecModule:
    """Return a module in which nothing is 0 or 1 by chance."""
    torch.manual_seed(0)
    name, _, block = model.partition(" ")
    options = ModelOptions(
        model=name,  # type: ignore[arg-type]
        block=block or "post_norm",  # type: ignore[arg-type]
        hidden_units=8,
        n_layers=layers,
        time_bias=model == "hstu",
    )
    module = PerSRecModule(Config(history=history, model=options), 30, None).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.requires_grad_(False)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("history", [ONE_GROUP, TWO_GROUPS, APART], ids=["one group", "two groups", "mean"])
@pytest.mark.parametrize("model", ["hstu", "sasrec", "sasrec sasrec", "sasrec ligr", "llama"])
def test_a_memory_stands_for_old_events(
    model: str, history: HistoryOptions, layers: int, dataset: Dataset, tmp_path: Path
) -> None:
    module, histories = module_of(model, history, layers), dataset.whole_histories()
    rows = np.array([3, 8, 0, 6, 1, 2, 7])
    expected = module.user_vectors(module.make_inputs(histories, rows))
    digest = weights_sha256(module)
    make_memory(module.encoder, module.embed, digest, dataset, histories, tmp_path / "memory")
    module.memory = open_memory(module.encoder, digest, dataset, tmp_path / "memory")
    assert torch.allclose(module.user_vectors(module.make_inputs(histories, rows)), expected, atol=1e-5)
    assert (module.memory.num_recalled, module.memory.num_whole) == (len(rows), 0)
    module.memory.tokens = "other"
    assert not torch.allclose(module.user_vectors(module.make_inputs(histories, rows)), expected, atol=1e-3)
    assert module.count_events(histories).tolist() == [min(n, history.window.num_recent) for n in LENGTHS]


def test_users_without_a_memory_are_read_whole(dataset: Dataset, tmp_path: Path) -> None:
    module, histories = module_of("sasrec"), dataset.whole_histories()
    digest, folder = weights_sha256(module), tmp_path / "memory"
    make_memory(module.encoder, module.embed, digest, dataset, histories.select(np.array([0, 2, 6])), folder)
    memory = open_memory(module.encoder, digest, dataset, folder)
    assert memory.num_users == (3, 9)
    rows = np.arange(9)
    expected = module.user_vectors(module.make_inputs(histories, rows))
    module.memory = memory
    inputs = module.make_inputs(histories, rows)
    assert isinstance(inputs, MixedInputs) and (memory.num_recalled, memory.num_whole) == (3, 6)
    assert torch.allclose(module.user_vectors(inputs), expected, atol=1e-5)
    module.score_repeats(learning=True)
    had, whole = module.make_inputs(histories, rows).had, had_by_history(histories, rows, module.maxlen)
    assert had is not None and all(map(torch.equal, had, whole))  # compressed events, too
    # A history that ends before what was compressed, and one that is not of this dataset, are no user's.
    earlier = dataset.histories(np.array([6]), dataset.offsets[6:7], dataset.offsets[6:7] + 8)
    for view in (earlier, as_histories([[1, 2]])):
        assert memory.make_inputs(view, np.arange(1)).recalled is None


def test_only_what_changed_is_computed_again(dataset: Dataset, tmp_path: Path) -> None:
    module, folder = module_of("hstu"), tmp_path / "memory"
    digest = weights_sha256(module)
    histories = dataset.whole_histories()
    assert make_memory(module.encoder, module.embed, digest, dataset, histories, folder)[1] == 9
    assert make_memory(module.encoder, module.embed, digest, dataset, histories, folder)[1] == 0
    lists = random_lists(LENGTHS)
    lists[2] = [*lists[2], 5]  # a new event of a user with old ones
    lists[1] = [*lists[1], 6]  # and of one without
    times = [[1000 * place * (user + 1) for place in range(len(items))] for user, items in enumerate(lists)]
    grown = load_dataset(write_dataset(tmp_path / "grown", lists, 30, timestamps=times))
    memory = open_memory(module.encoder, digest, grown, folder)
    assert memory.num_users == (9, 9)  # all the same: the new events are recent ones
    found, computed = make_memory(module.encoder, module.embed, digest, grown, grown.whole_histories(), folder)
    assert computed == 1
    again = make_memory(module.encoder, module.embed, digest, grown, grown.whole_histories(), tmp_path / "fresh")[0]
    for name in ("memory", "times", "ends", "checks", "users"):
        np.testing.assert_allclose(np.load(found / f"{name}.npy"), np.load(again / f"{name}.npy"), atol=1e-6)
    lists[6][-5] = lists[6][-5] % 30 + 1  # an old event is another one
    other = load_dataset(write_dataset(tmp_path / "other", lists, 30, timestamps=times))
    assert open_memory(module.encoder, digest, other, folder).num_users == (8, 9)


def test_a_checksum_tells_events_and_their_order_apart() -> None:
    found = checksums(as_histories([[1, 2, 3], [2, 1, 3], [1, 2, 3], [1, 2], []]))
    assert found[0] == found[2] and found[4] == 0 and len(np.unique(found)) == 4


def test_another_models_memory_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    module, folder = module_of("hstu"), tmp_path / "memory"
    with pytest.raises(MissingFileError, match=r"holds no compressed histories: run PerSRec/compress\.sh first"):
        open_memory(module.encoder, "a", dataset, folder)
    make_memory(module.encoder, module.embed, "a", dataset, dataset.whole_histories(), folder)
    with pytest.raises(UserError, match="was compressed with other weights"):
        open_memory(module.encoder, "b", dataset, folder)
    (folder / "latest.json").write_text(json.dumps({"arrays": "../elsewhere", "model": "a"}))
    with pytest.raises(UserError, match=r"which are not there: run PerSRec/compress\.sh again"):
        open_memory(module.encoder, "a", dataset, folder)


def test_the_commands_compress_test_and_recommend(tiny_path: Path, tmp_path: Path) -> None:
    flags = ("--num_epochs", "2", "--hidden_units", "16", "--maxlen", "6")
    run = Command("PerSRec", tiny_path, tmp_path, (*flags, "--number_of_user_tokens", "2", "--pretrain_item_num", "3"))
    run.run()
    said = tmp_path / "told"
    forked.run_script("PerSRec/compress.py", run.folder, "--histories", "test", output=said)
    assert "90 of them computed now" in said.read_text()
    forked.run_script("PerSRec/evaluate.py", run.folder, "--from_cache", output=said)
    assert "90 histories from the memory, 0 read whole" in said.read_text()
    assert "own test: +0.0000 [" in said.read_text()
    forked.run_script("PerSRec/evaluate.py", run.folder, output=said)
    forked.run_script("PerSRec/compress.py", run.folder, output=said)
    answers = []
    for more in ((), ("--memory", run.folder / "memory")):
        file = tmp_path / f"{len(more)}.csv"
        forked.run_script("scripts/recommend.py", run.folder, "--output", file, *more, output=said)
        answers.append(file.read_text())
    assert [line.rsplit(",", 2)[0] for line in answers[0].splitlines()] == [
        line.rsplit(",", 2)[0] for line in answers[1].splitlines()
    ]
    plain = Command("PerSRec", tiny_path, tmp_path / "plain", flags)
    plain.run()
    with pytest.raises(RuntimeError, match="has no user tokens: train PerSRec with --number_of_user_tokens K"):
        forked.run_script("PerSRec/compress.py", plain.folder, output=said)
    with pytest.raises(RuntimeError, match="--memory and --tokens are for --from_cache"):
        forked.run_script("PerSRec/evaluate.py", run.folder, "--tokens", "zero", output=said)
