"""Two-stage finetuning and encoding, run whole on a tiny random backbone."""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from Recformer.backbone import load_backbone
from Recformer.checkpoint import load_weights
from Recformer.data import TrainDataset
from Recformer.module import RecformerModule
from Recformer.options import FinetuneConfig as Config
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.data.vectors import load_embeddings
from seqrec.text.encoding import encode_items
from seqrec.text.options import EncoderOptions
from seqrec.text.sequences import HistoryReader, item_sequences
from seqrec.text.tokens import tokenize_items
from seqrec.training.checkpoints import load_state
from seqrec.training.options import TrainingConfig
from seqrec.training.restore import load_run
from tests import forked
from tests.conftest import write_dataset
from tests.forked import run_script, start_script
from tests.grown import ORDER, write_grown
from tests.Recformer.conftest import LIMIT_FLAGS, LIMITS
from tests.recommending import assert_recommends_as_it_was_tested
from tests.two_processes import BATCH_SIZE, assert_two_are_one, split_batches


def flags(data: Path, backbone: Path, folder: Path, *more: str) -> list[str | Path]:
    fixed = ["--num_epochs", "3", "--lr", "0.003", "--warmup_steps", "5", "--no-progress_bar", *LIMIT_FLAGS]
    paths: list[str | Path] = ["--data_path", data, "--model_name_or_path", backbone, "--runs_dir", folder / "runs"]
    return [*paths, "--embedding_dir", folder / "embedding", *fixed, *more]


@pytest.fixture(scope="module")
def finished(tiny_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the item vectors of both stages."""
    folder = tmp_path_factory.mktemp("finished")
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, folder), output=folder / "log")
    return folder


def test_it_exports_the_backbone_untouched(finished: Path, tiny: Dataset, backbone: Path) -> None:
    model, tokenizer = load_backbone(str(backbone), attention_window=64, **LIMITS)
    items = tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, LIMITS["max_attr_length"])
    exported = load_embeddings("longformer", tiny, finished / "embedding")
    torch.testing.assert_close(encode_items(model, items), torch.from_numpy(exported), rtol=0, atol=1e-6)


def test_finetuned_vectors_are_those_of_the_best_epochs_own_weights(
    finished: Path, tiny: Dataset, backbone: Path
) -> None:
    best = finished / "runs/Recformer/tiny/longformer-seed42/stage1/checkpoints/best.ckpt"
    model, tokenizer = load_backbone(str(backbone), attention_window=64, **LIMITS)
    load_weights(model, best)
    items = tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, LIMITS["max_attr_length"])
    exported = load_embeddings("finetune", tiny, finished / "embedding")
    torch.testing.assert_close(encode_items(model, items), torch.from_numpy(exported), rtol=0, atol=1e-6)
    assert np.abs(exported - load_embeddings("longformer", tiny, finished / "embedding")).max() > 1e-3


def test_the_second_stage_keeps_the_item_vectors_and_counts_only_where_it_is_better(finished: Path) -> None:
    run = finished / "runs/Recformer/tiny/longformer-seed42"
    stages = [load_state(run / f"stage{i}/checkpoints/best.ckpt") for i in (1, 2)]
    assert torch.equal(stages[0]["item_table"], stages[1]["item_table"])
    curves = [
        [line.split(",") for line in (run / f"stage{i}/logs/metrics.csv").read_text().splitlines()] for i in (1, 2)
    ]
    column = [curve[0].index("valid/NDCG@10") for curve in curves]
    best = [max(float(row[c]) for row in curve[1:]) for curve, c in zip(curves, column, strict=True)]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["valid"]["NDCG@10"] == pytest.approx(max(best), abs=1e-6)
    every = [float(row[c]) for curve, c in zip(curves, column, strict=True) for row in curve[1:]]
    assert metrics["best_epoch"] == 1 + every.index(max(every))  # counted through both stages, from 1
    better = 1 if metrics["valid"]["NDCG@10"] == pytest.approx(best[0], abs=1e-6) else 2
    assert (run / "checkpoints/best.ckpt").samefile(run / f"stage{better}/checkpoints/best.ckpt")
    assert metrics["test"]["users"] == len(np.flatnonzero(np.load(run / "ranks-test.npy") >= 0))


def test_it_recommends_as_it_was_tested(finished: Path, tiny_path: Path) -> None:
    assert_recommends_as_it_was_tested(finished / "runs/Recformer/tiny/longformer-seed42", tiny_path)


@pytest.mark.parametrize("stage", [1, 2])
def test_new_items_are_encoded_as_the_known_ones_were(
    finished: Path, tiny: Dataset, tiny_path: Path, tmp_path: Path, stage: int
) -> None:
    run = tmp_path / "runs/Recformer/tiny/longformer-seed42"
    shutil.copytree(finished / "runs", tmp_path / "runs", symlinks=True)
    link = run / "checkpoints/best.ckpt"
    link.unlink()
    link.symlink_to(Path("..") / f"stage{stage}/checkpoints/best.ckpt")  # whichever was better
    grown_path = write_grown(tiny, tmp_path / "grown")
    (_, before), (grown, after) = load_run(run, tiny_path), load_run(run, tiny_path, grown_path)
    known, everything = before.module.item_vectors(), after.module.item_vectors()
    was_known = ORDER <= 40
    torch.testing.assert_close(everything[1:][was_known], known[ORDER[was_known]], rtol=0, atol=1e-6)
    assert everything[1:][~was_known].norm(dim=1) == pytest.approx([1] * 5)
    whole = grown.whole_histories()
    views = tiny.whole_histories(), replace(whole, ends=whole.ends - 1)  # less the new item at the end
    rows = np.arange(7)
    with torch.no_grad():
        users = [
            m.module.user_vectors(m.make_inputs(view, rows)) for m, view in zip((before, after), views, strict=True)
        ]
    torch.testing.assert_close(users[0], users[1], rtol=0, atol=1e-4)


def test_new_items_are_encoded_by_the_weights_of_the_beginning_where_those_made_the_table(
    tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, backbone, tmp_path, "--item_refresh", "never", "--second_stage_epochs", "0")
    run_script("Recformer/finetune.py", *given, output=tmp_path / "log")
    run = tmp_path / "runs/Recformer/tiny/longformer-seed42"
    (_, before), (_, after) = (load_run(run, tiny_path, path) for path in (None, write_grown(tiny, tmp_path / "grown")))
    was_known = ORDER <= 40
    found = after.module.item_vectors()[1:][was_known]
    torch.testing.assert_close(found, before.module.item_vectors()[ORDER[was_known]], rtol=0, atol=1e-6)


def test_encode_writes_the_vectors_of_a_checkpoint(
    finished: Path, tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    best = finished / "runs/Recformer/tiny/longformer-seed42/stage1/checkpoints/best.ckpt"
    run_script(
        "Recformer/encode.py",
        *("--init_type", "mine", "--data_path", str(tiny_path), "--model_name_or_path", str(backbone)),
        *("--checkpoint", str(best), "--embedding_dir", str(tmp_path), *LIMIT_FLAGS),
        output=tmp_path / "log",
    )
    mine = load_embeddings("mine", tiny, tmp_path)
    np.testing.assert_allclose(mine, load_embeddings("finetune", tiny, finished / "embedding"), atol=1e-6)


def encode_as_one_of_two(rank: int, port: int, flags: list[str]) -> None:
    """Run encode.py as torchrun would."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    forked.run_as_main(str(forked.ROOT / "Recformer/encode.py"), flags)


def test_encoding_in_parts_by_two_processes_is_encoding(
    finished: Path, tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    where = ["--data_path", str(tiny_path), "--model_name_or_path", str(backbone), "--embedding_dir", str(tmp_path)]
    flags = ["--init_type", "both", *where, "--part_items", "7", *LIMIT_FLAGS]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        forked.start(encode_as_one_of_two, rank, port, flags, output=tmp_path / f"said.{rank}") for rank in range(2)
    ]
    for rank, process in enumerate(processes):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / f"said.{rank}").read_text()
    both = load_embeddings("both", tiny, tmp_path)
    np.testing.assert_allclose(both, load_embeddings("longformer", tiny, finished / "embedding"), atol=1e-6)
    assert not list((tmp_path / ".parts").iterdir())


def test_zero_shot_leaves_the_weights_alone(tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, "--test_only"), output=tmp_path / "log")
    run = tmp_path / "runs/Recformer/tiny/longformer-zeroshot-seed42"
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 0
    assert not (tmp_path / "embedding/tiny/finetune.npy").exists()


def assert_a_kill_leaves_no_trace(whole: Path, folder: Path, given: list[str | Path]) -> None:
    """Run what made the folder `whole` in another folder, kill it in each stage, and compare what both end with."""
    run, whole = (path / "runs/Recformer/tiny/longformer-seed42" for path in (folder, whole))
    for stage in (1, 2):
        curve = run / f"stage{stage}/logs/metrics.csv"
        process = start_script("Recformer/finetune.py", *given, "--resume", output=folder / "log")
        while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > 1):
            time.sleep(0.01)
        assert process.is_alive(), (folder / "log").read_text()[-3000:]
        process.kill()
        process.join()
    run_script("Recformer/finetune.py", *given, "--resume", output=folder / "log")
    for name in ("stage1/checkpoints/best.ckpt", "stage2/checkpoints/last.ckpt"):
        resumed, uninterrupted = load_state(run / name), load_state(whole / name)
        assert all(torch.equal(resumed[key], uninterrupted[key]) for key in uninterrupted)
    same = [json.loads((path / "metrics.json").read_text()) for path in (run, whole)]
    for key in ("test", "valid", "best_epoch", "epochs"):
        assert same[0][key] == same[1][key]


def test_a_killed_run_ends_as_if_it_had_not_been(
    finished: Path, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    assert_a_kill_leaves_no_trace(finished, tmp_path, flags(tiny_path, backbone, tmp_path))


def test_a_target_is_any_training_event_but_the_first_and_its_history_precedes_it(
    tiny: Dataset, backbone: Path
) -> None:
    _, tokenizer = load_backbone(str(backbone), **LIMITS)
    items = tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, 8)
    train = TrainDataset(leave_one_out(tiny).train, items, 1000, 0, seed=1)
    rows = np.arange(20)
    seen = set()
    for epoch in range(40):
        batch = train[BatchKey(rows, epoch, 0)]
        counts = [
            int(positions.max()) for positions in batch.inputs.item_position_ids.split(batch.inputs.lengths.tolist())
        ]
        for row, count, target in zip(rows, counts, batch.targets.tolist(), strict=True):
            start = train.sequences.starts[row]
            assert count >= 1
            assert train.sequences.items[start + count] == target
            assert start + count < train.sequences.ends[row]
            seen.add((row, count))
    assert len(seen) == int((train.sequences.lengths[rows] - 1).sum())


def test_tokens_are_counted_as_they_are_read(tiny: Dataset, backbone: Path) -> None:
    _, tokenizer = load_backbone(str(backbone), **LIMITS)
    items = tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, 8)
    histories = leave_one_out(tiny).test
    expected = [
        min(1 + sum(int(items.lengths[i]) for i in histories.items[a:b]), 30)
        for a, b in zip(histories.starts, histories.ends, strict=True)
    ]
    assert HistoryReader(items, 30).count_tokens(histories).tolist() == expected


@pytest.fixture(scope="module")
def module(tiny: Dataset, backbone: Path) -> RecformerModule:
    """A model over the tiny catalogue that trains its items too, without dropout."""
    encoder = EncoderOptions(str(backbone), **LIMITS)
    config = Config(train_items=True, item_refresh="steps:3", encoder=encoder)
    torch.manual_seed(0)
    model, tokenizer = load_backbone(*encoder.source, **encoder.changes)
    for parameter in model.parameters():  # as it comes, all texts have nearly one vector, and gradients nearly cancel
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    items = tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, LIMITS["max_attr_length"])
    module = RecformerModule(model, items, config)
    module.encode()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.model.eval()
    return module


def steps(rank: int, world_size: int, data: Path, backbone: Path) -> Iterator[tuple[Any, Any]]:
    """Yield a module and one process's share of each batch, with items that learn and without; the last has one row."""
    dataset, encoder = load_dataset(data), EncoderOptions(str(backbone), **LIMITS)
    for train_items, num_negatives in ((True, 4), (True, 0), (False, 4), (False, 0)):
        torch.manual_seed(0)
        model, tokenizer = load_backbone(*encoder.source, **encoder.changes)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
        items = tokenize_items(dataset.item_table(), dataset.attributes, tokenizer, 3, LIMITS["max_attr_length"])
        module = RecformerModule(model, items, Config(train_items=train_items, encoder=encoder))
        module.set_table(torch.randn(module.item_table.shape))
        module.train_items = train_items
        module.model.eval()
        histories = leave_one_out(dataset).train.select(np.arange(BATCH_SIZE + 1))
        train = TrainDataset(histories, items, LIMITS["max_token_num"], num_negatives, 1, train_items)
        for key in split_batches(train.sequences.lengths, rank, world_size):
            yield module, train[key]


def test_two_processes_have_the_losses_and_the_gradients_of_one(
    tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    assert_two_are_one(steps, tiny_path, backbone, folder=tmp_path)


def test_a_single_user_is_evaluated(backbone: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "lone", [[1, 2, 3, 4, 5, 6]], 6)
    run_script("Recformer/finetune.py", *flags(data, backbone, tmp_path, "--num_epochs", "1"), output=tmp_path / "log")
    metrics = json.loads((tmp_path / "runs/Recformer/lone/longformer-seed42/metrics.json").read_text())
    assert metrics["test"]["users"] == 1


@pytest.mark.parametrize("num_negatives", [0, 5])
def test_trained_items_give_the_gradient_of_the_plain_formula(
    module: RecformerModule, tiny: Dataset, num_negatives: int
) -> None:
    train = TrainDataset(
        leave_one_out(tiny).train, module.items, LIMITS["max_token_num"], num_negatives, seed=1, with_classes=True
    )
    batch = train[BatchKey(np.arange(12), 0, 0)]
    weight = module.model.embeddings.word_embeddings.weight
    module.train_items = True
    (actual,) = torch.autograd.grad(module.training_step(batch), weight)

    assert train.target_share is not None
    targets = batch.targets.tolist()
    classes = {*targets, *batch.negatives.items.tolist()}
    total = torch.zeros(())
    for user, target in zip(module.user_vectors(batch.inputs), targets, strict=True):
        scores, own = [], torch.zeros(())
        for item in classes:
            score = user @ F.normalize(module.model(item_sequences(np.array([item]), module.items)).pooled[0], dim=0)
            if item == target:
                own = score
            else:
                missed = (1 - train.target_share[item]) ** 11 * (1 - num_negatives / tiny.num_items)
                score = score - np.log(1 - missed)
            scores.append(score)
        total = total + torch.stack(scores).logsumexp(0) - own
    (expected,) = torch.autograd.grad(total / len(targets), weight)
    assert actual.abs().max() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_chance_of_an_item_is_how_often_batches_have_it(tiny: Dataset, module: RecformerModule) -> None:
    train = TrainDataset(leave_one_out(tiny).train, module.items, 40, 3, seed=1, with_classes=True)
    generator = np.random.default_rng(0)
    seen = np.zeros(tiny.num_items + 1)
    for number in range(3000):
        batch = train[BatchKey(generator.integers(len(train.sequences), size=5), number, number)]
        seen[np.unique(np.concatenate([batch.targets[1:], batch.negatives.items]))] += 1 / 3000
    assert batch.classes is not None and train.target_share is not None
    chance = 1 - (1 - train.target_share) ** 4 * (1 - 3 / tiny.num_items)
    np.testing.assert_allclose(seen[1:], chance[1:], atol=0.05)
    items = np.unique(np.concatenate([batch.targets, batch.negatives.items]))
    np.testing.assert_allclose(batch.classes.log_chance.exp(), chance[items], rtol=1e-4)


def test_items_that_are_not_trained_get_no_gradient(module: RecformerModule, tiny: Dataset) -> None:
    module.train_items = False
    train = TrainDataset(leave_one_out(tiny).train, module.items, LIMITS["max_token_num"], 0, seed=1)
    batch = train[BatchKey(np.arange(12), 0, 0)]
    plain = F.cross_entropy(
        (module.user_vectors(batch.inputs) @ F.normalize(module.item_table, dim=1).T)[:, 1:], batch.targets - 1
    )
    torch.testing.assert_close(module.training_step(batch), plain, rtol=1e-5, atol=1e-5)


def test_items_are_encoded_every_so_many_steps(module: RecformerModule, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    monkeypatch.setattr(module, "encode", lambda: encoded.append(module.global_step))
    for step in range(8):
        monkeypatch.setattr(RecformerModule, "global_step", step)
        module.on_train_batch_start(None, step)
    assert encoded == [0, 3, 6]


@pytest.mark.parametrize("mode", ["never", "steps:2"])
def test_item_refresh_decides_how_fresh_the_items_are(
    tiny_path: Path, backbone: Path, tmp_path: Path, mode: str
) -> None:
    more = ["--item_refresh", mode, "--num_epochs", "1", "--second_stage_epochs", "0"]
    run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, *more), output=tmp_path / "log")
    best = load_state(tmp_path / "runs/Recformer/tiny/longformer-seed42/stage1/checkpoints/best.ckpt")["item_table"]
    start = torch.from_numpy(np.load(tmp_path / "embedding/tiny/longformer.npy"))
    assert torch.equal(best, start) == (mode == "never")
    assert (tmp_path / "embedding/tiny/finetune.npy").exists() == (mode != "never")


def test_contradictory_item_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="train_items"):
        Config(train_items=True, item_refresh="never")
    with pytest.raises(ValueError, match="--second_stage_epochs 1 is less than --eval_every 2"):
        Config(second_stage_epochs=1, training=TrainingConfig(eval_every=2))
    with pytest.raises(ValueError, match="steps:N"):
        Config(item_refresh="steps:0")
