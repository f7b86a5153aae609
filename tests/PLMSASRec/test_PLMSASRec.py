"""PLMSASRec: what is frozen stays, caches change nothing, equations by hand, whole runs."""

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PLMSASRec.data import TrainDataset, make_inputs
from PLMSASRec.model import SASRecEncoder
from PLMSASRec.module import (
    PLMSASRecModule,
    choose_users,
    run_name,
)
from PLMSASRec.options import Config, SasrecOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey, RowSampler
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.items.options import ItemLearningOptions, ItemOptions, PreInferenceOptions, PromptOptions
from seqrec.items.recommender import TextRecommender
from seqrec.items.vectors import TextVectors
from seqrec.nn.losses import Loss, LossOptions
from seqrec.text.blocks import Architecture
from seqrec.training.checkpoints import load_state
from seqrec.training.item_batches import ItemReader
from seqrec.training.options import TrainingConfig
from seqrec.training.restore import load_run
from seqrec.training.text_module import make_batches, take_weights, weights_by_block
from seqrec.training.transitions import TransitionReader
from tests.conftest import write_dataset
from tests.golden import assert_unchanged, fill, train
from tests.histories import as_histories
from tests.interrupted import Command, assert_same_run, kill_at_random_moments
from tests.recommending import assert_recommends_as_it_was_tested
from tests.tiny_models import BLOCKS, write_model

SMALL = SasrecOptions(sasrec_hidden_size=16, sasrec_inner_size=24, sasrec_seq_len=6)
SAMPLED = LossOptions(loss="sampled_softmax", num_negatives=5)
MODES = {
    "frozen": {},
    "last 1": {"plm_last_n_unfreeze": 1},
    "last 2": {"plm_last_n_unfreeze": 2},
    "all": {"plm_last_n_unfreeze": -1},
    "low-rank": {"plm_last_n_unfreeze": -1, "lora_r": 2},
    "low-rank, last": {"plm_last_n_unfreeze": 1, "lora_r": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write_model(root / kind, kind) for kind in ("bert", "opt", "llama")}


def config_of(folder: Path, **changes: Any) -> Config:
    """Return the flags of a small model: those of items, prompts, the cache and SASRec by name, then the others."""
    parts: dict[str, Any] = {}
    groups: dict[str, type[Any]] = {
        "items": ItemOptions,
        "prompt": PromptOptions,
        "cache": PreInferenceOptions,
        "learning": ItemLearningOptions,
    }
    for name, part in groups.items():
        own = {key: changes.pop(key) for key in list(changes) if key in part.__dataclass_fields__}
        parts[name] = part(**own | ({"plm_name": str(folder), "tokenized_len": 8} if name == "items" else {}))
    return Config(**({"model": SMALL} | parts | changes))


def module_of(config: Config, dataset: Dataset) -> PLMSASRecModule:
    torch.manual_seed(0)
    return PLMSASRecModule(config, dataset)


def first_batch(module: PLMSASRecModule, dataset: Dataset) -> Any:
    module.on_train_epoch_start()
    data = make_batches(module, dataset, leave_one_out(dataset))
    return data.train[BatchKey(np.arange(20), 0, 0)]


def plm_state(module: PLMSASRecModule) -> dict[str, Tensor]:
    """Return the language model's tensors by their names in its files."""
    found = {}
    assert isinstance(module.model.items, TextVectors)
    for blocks in (module.model.items.lower, module.model.items.upper):
        for name, tensor in {} if blocks is None else blocks.model.state_dict().items():
            if "lora_" not in name:
                found[name.replace(".base_layer.", ".")] = tensor
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bert", "opt", "llama"])
def test_construction_leaves_the_language_model_and_a_step_changes_what_it_trains(
    models: dict[str, Path], texts: Dataset, kind: str, mode: str
) -> None:
    config = config_of(models[kind], objective=SAMPLED, **MODES[mode])
    module = module_of(config, texts)
    weights = Architecture.read(models[kind]).weight_files()
    before = copy.deepcopy(plm_state(module))
    for name, tensor in weights.read(before, torch.float32).items():
        assert torch.equal(before[name], tensor), name
    module.train()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 0.01)
    for _ in range(2):  # a low-rank update's first factor has no gradient before the second has moved
        optimizer.zero_grad()
        module.training_step(first_batch(module, texts)).backward()
        optimizer.step()
    n = config.items.plm_last_n_unfreeze
    first = {0: BLOCKS, -1: -1}.get(n, BLOCKS - n) if not config.items.lora_r else BLOCKS
    for name, tensor in plm_state(module).items():
        parts = [int(part) for part in name.split(".") if part.isdecimal()]
        is_above = "norm" in name and not parts and "embed" not in name.lower()
        number = parts[0] if parts else (BLOCKS - 1 if is_above else -1)
        unread = "embed_positions" in name or "position_embeddings" in name or "word" in name or "embed_tokens" in name
        if number < first:
            assert torch.equal(tensor, before[name]), name
        elif not unread and not name.endswith(("k_proj.bias", "key.bias")):  # a key's bias has no gradient
            assert not torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("pooling", ["mean", "last", "mean_last"])
@pytest.mark.parametrize("kind", ["bert", "opt", "llama"])
def test_live_and_cached_items_are_the_same(
    models: dict[str, Path], texts_path: Path, tmp_path: Path, kind: str, pooling: str
) -> None:
    dataset = load_dataset(copy_to(texts_path, tmp_path))
    tables = []
    for options in (
        {},
        {"pre_inference": True},
        {"plm_last_n_unfreeze": 1},
        {"plm_last_n_unfreeze": 1, "pre_inference": True},
        {"plm_last_n_unfreeze": 2, "pre_inference": True, "pre_inference_layer_wise": "True"},
        {"plm_last_n_unfreeze": -1},
    ):
        module = module_of(config_of(models[kind], pooling_method=pooling, **options), dataset).eval()
        fill_new(module)
        table = module.encode_items()
        assert not table[0].any() and table[1:].std(0).min() > 0
        tables.append(table)
    for table in tables[1:]:
        torch.testing.assert_close(table, tables[0], rtol=0, atol=1e-5)


def copy_to(dataset: Path, folder: Path) -> Path:
    """Return a dataset like `texts`, whose caches are its own."""
    import shutil

    return Path(shutil.copytree(dataset, folder / dataset.name))


def fill_new(module: PLMSASRecModule) -> None:
    """Give everything but the language model weights that depend on names alone."""
    for name, parameter in module.named_parameters():
        if ".upper." not in name and ".lower." not in name:
            values = np.random.default_rng(len(name)).normal(0, 0.1, tuple(parameter.shape))
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(values))


def test_frozen_blocks_have_no_dropout_and_trained_ones_do(models: dict[str, Path], texts: Dataset) -> None:
    for options, is_random in (({}, False), ({"plm_last_n_unfreeze": 1}, True), ({"use_prompt": True}, False)):
        module = module_of(config_of(models["opt"], **options), texts).train()
        items = module.model.items
        batch = first_batch(module, texts)
        pair = [items(batch.items.rows, batch.items.texts).detach() for _ in range(2)]
        assert torch.equal(*pair) != is_random


def test_an_item_runs_once_however_often_it_occurs(models: dict[str, Path], texts: Dataset) -> None:
    full = LossOptions()
    for head, loss, refresh in (
        ("tied", SAMPLED, "epoch"),
        ("untied", SAMPLED, "epoch"),
        ("untied", full, "epoch"),
        ("tied", full, "epoch"),
        ("tied", full, "step"),
    ):
        config = config_of(models["bert"], head=head, objective=loss, plm_last_n_unfreeze=1, item_refresh=refresh)
        module = module_of(config, texts)
        data = make_batches(module, texts, leave_one_out(texts)).train
        assert isinstance(data, TrainDataset)
        batch = data[BatchKey(np.arange(30), 0, 0)]
        assert batch.items.texts is not None and len(batch.items.texts.offsets) - 1 == len(batch.items.rows)
        assert len(batch.items.rows.unique()) == len(batch.items.rows) < len(batch.items.events)
        read, offsets = data.reader.sequences.gather(np.arange(30), 7)
        events, targets = np.delete(read, offsets[1:] - 1), np.delete(read, offsets[:-1])
        assert sorted(batch.items.rows[batch.items.events].tolist()) == sorted(events.tolist())
        named = set(events) | (set(targets) if loss == SAMPLED and head == "tied" else set())
        extra = set(batch.items.rows.tolist()) - named
        if loss.loss == "ce" and head == "tied":
            assert batch.items.classes is not None
            assert (
                batch.items.classes.tolist()
                == np.flatnonzero(data.reader.sequences.item_counts(texts.num_items)).tolist()
            )
        if refresh == "step":
            assert torch.equal(batch.items.rows, cast(Tensor, batch.items.classes))
        else:
            assert named <= set(batch.items.rows.tolist()) and len(extra) <= (5 if loss == SAMPLED else 0)


def by_hand(model: TextRecommender, vectors: Tensor) -> Tensor:
    """Return SASRec's outputs for one history, (E, d), by the equations of its post-norm form."""
    encoder, E = cast(SASRecEncoder, model.encoder), len(vectors)
    x: Tensor = encoder.norm(vectors + encoder.positions.weight[:E])
    blocks: list[Any] = list(encoder.blocks)
    for block in blocks:
        heads = block.num_heads
        q, (k, v) = block.query(x), block.key_value(x).chunk(2, dim=1)
        mixed = []
        for qh, kh, vh in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
            scores = qh @ kh.T / (qh.shape[1] ** 0.5)
            mixed.append((scores + torch.full((E, E), -10000.0).triu(1)).softmax(1) @ vh)
        x = block.attention_norm(x + block.attention_out(torch.cat(mixed, 1)))
        x = block.feed_forward_norm(x + block.feed_forward_out(F.gelu(block.feed_forward_in(x))))
    return x


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize(("loss", "repeats"), [("ce", 0), ("ce", -1.3), ("sampled_softmax", 0), ("bce", 0)])
def test_the_loss_is_the_equation(
    models: dict[str, Path], texts: Dataset, head: str, loss: Loss, repeats: float
) -> None:
    options = SAMPLED if loss == "sampled_softmax" else LossOptions(loss=loss)
    config = config_of(models["bert"], head=head, objective=options, repeat_score=repeats != 0)
    module = module_of(config, texts).eval()
    fill_new(module)
    if module.repeat_score is not None:
        module.repeat_score.data.fill_(repeats)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = first_batch(module, texts)
    found = module.training_step(batch)
    table, model = module.encode_items(), module.model
    data = cast(TrainDataset, make_batches(module, texts, leave_one_out(texts)).train)
    rows = np.arange(20)
    order = rows[np.argsort(-data.lengths[rows], kind="stable")]
    read, offsets = data.reader.sequences.gather(order, 7)
    hidden, targets = [], []
    for start, end in pairwise(offsets):
        hidden.append(by_hand(model, table[torch.from_numpy(read[start : end - 1])]))
        targets.append(torch.from_numpy(read[start + 1 : end]))
    h, y = torch.cat(hidden), torch.cat(targets)
    scores = h @ table.T if head == "tied" else h @ model.classes.weight.T + model.class_bias[:, 0]
    for row, place in enumerate(place for start, end in pairwise(offsets) for place in range(start, end - 1)):
        start = offsets[np.searchsorted(offsets, place, side="right") - 1]
        scores[row, np.unique(read[start : place + 1])] += repeats
    own = scores[torch.arange(len(y)), y]
    drawn = data.reader.draw_negatives(BatchKey(rows, 0, 0), 42, order, data.lengths[order], y.numpy())
    others = drawn.items
    if loss == "ce":
        classes = torch.from_numpy(data.read_items.seen) if head == "tied" else torch.arange(1, 41)
        expected = F.cross_entropy(scores[:, classes], torch.searchsorted(classes, y))
    elif loss == "bce":
        expected = F.softplus(-own).mean() + F.softplus(scores[torch.arange(len(y)), others]).mean()
    else:
        sampled = scores[:, others] - drawn.log_chance
        sampled = sampled.masked_fill(others == y[:, None], -torch.inf)
        expected = F.cross_entropy(torch.cat([own[:, None], sampled], 1), torch.zeros_like(y))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_classes_of_the_full_softmax_are_of_the_epoch_s_start(models: dict[str, Path], texts: Dataset) -> None:
    steps = {}
    for refresh in ("epoch", "step"):
        module = module_of(config_of(models["bert"], plm_last_n_unfreeze=1, item_refresh=refresh), texts).eval()
        fill_new(module)
        module.log = lambda *_, **__: None  # type: ignore[method-assign]
        module.on_train_epoch_start()
        data = cast(TrainDataset, make_batches(module, texts, leave_one_out(texts)).train)
        batch = data[BatchKey(np.arange(5), 0, 0)]
        found = []
        for _ in range(2):
            loss = module.training_step(batch)
            module.zero_grad()
            loss.backward()
            own = dict(module.named_parameters())
            gradient = own["model.items.projection.maps.0.weight"].grad
            assert gradient is not None
            found.append((loss.detach(), gradient.clone(), len(batch.items.rows)))
            with torch.no_grad():  # the language model moves within the epoch
                for name, parameter in own.items():
                    if ".upper." in name:
                        parameter.add_(0.05)
        steps[refresh] = found
    (epoch, later), (step, moved) = steps["epoch"], steps["step"]
    torch.testing.assert_close(epoch[:2], step[:2], rtol=1e-4, atol=1e-6)  # at the start they are the same
    assert epoch[2] < step[2]
    assert not torch.allclose(later[0], moved[0], rtol=1e-6)


def test_an_event_reads_those_before_it_and_no_other_user(models: dict[str, Path], texts: Dataset) -> None:
    module = module_of(config_of(models["bert"]), texts).eval()
    lists = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10], [4]]
    table = module.encode_items()

    def outputs(histories: list[list[int]]) -> list[Tensor]:
        inputs = make_inputs(as_histories(histories), np.arange(len(histories)), 6)
        flat = module.model.encoder(table[inputs.items], inputs.positions, inputs.layout)
        parts = flat.split(inputs.layout.offsets.diff().tolist())
        return [parts[i] for i in inputs.order]

    whole = outputs(lists)
    assert [len(part) for part in whole] == [6, 2, 1]  # the most recent six
    changed = outputs([[1, 2, 3, 4, 5, 6, 7, 21], lists[1], lists[2]])
    torch.testing.assert_close(changed[0][:5], whole[0][:5], rtol=0, atol=1e-6)
    assert not torch.allclose(changed[0][5], whole[0][5])
    for alone, together in zip((outputs([history])[0] for history in lists), whole, strict=True):
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    users = module.user_vectors(make_inputs(as_histories(lists), np.arange(3), 6))
    torch.testing.assert_close(users, torch.stack([part[-1] for part in whole]), rtol=0, atol=1e-6)


def test_training_sequences_are_the_published_windows(models: dict[str, Path], texts: Dataset) -> None:
    histories = as_histories([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2]])
    reader = TransitionReader(histories, 40, 5, LossOptions(), 0)
    data = TrainDataset(reader, ItemReader(histories, 40, LossOptions(), True, None))
    batch = data[BatchKey(np.array([0, 1]), 0, 0)]
    assert batch.items.rows[batch.items.events].tolist() == [3, 4, 5, 6, 7, 1]
    assert batch.items.rows.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]  # the others of the 40 items occur in no training
    assert batch.items.rows[batch.items.targets - 1].tolist() == [4, 5, 6, 7, 8, 2]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 0]


def test_rates_fall_from_block_to_block(tmp_path: Path, texts: Dataset) -> None:
    folder = write_model(tmp_path / "model", "bert")
    module = module_of(config_of(folder, plm_last_n_unfreeze=-1, plm_lr=1.0, plm_weight_decay=0.5), texts)
    module._trainer = FakeTrainer()  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(parameter)].removeprefix("model.items.upper.model."): (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(names.values()) == {names[id(p)] for g in optimizer.param_groups for p in g["params"]}
    assert found["encoder.layer.2.output.dense.weight"] == pytest.approx((0.8, 0.5))
    assert found["encoder.layer.0.output.dense.weight"] == pytest.approx((0.8**3, 0.5))
    assert found["encoder.layer.1.output.LayerNorm.weight"] == pytest.approx((0.8**2, 0.0))
    assert found["encoder.layer.1.output.dense.bias"] == pytest.approx((0.8**2, 0.0))
    assert found["embeddings.word_embeddings.weight"] == pytest.approx((0.8**3, 0.5))
    assert found["model.items.projection.maps.0.weight"] == pytest.approx((1e-3, 0.1))
    assert found["model.items.projection.maps.0.bias"] == pytest.approx((1e-3, 0.0))
    opt = module_of(config_of(write_model(tmp_path / "opt", "opt"), plm_last_n_unfreeze=1), texts)
    trained = weights_by_block(opt.model.items)
    assert list(trained) == [1]  # the norm after the last block, too
    assert len(trained[1]) == len([n for n, _ in opt.named_parameters() if ".layers.2." in n]) + 2


class FakeTrainer:
    """As much of a Trainer as an optimiser asks for."""

    estimated_stepping_batches, max_epochs, gradient_clip_val, precision = 10, 1, None, "32-true"


def test_prompts_are_learned_with_the_base_rate_and_reach_every_block(models: dict[str, Path], texts: Dataset) -> None:
    for kind, pooling in (("bert", "mean"), ("opt", "mean_last"), ("llama", "last")):
        for projection in (True, False):
            config = config_of(
                models[kind], use_prompt=True, pooling_method=pooling, prompt_projection=projection, objective=SAMPLED
            )
            module = module_of(config, texts).train()
            module.log = lambda *_, **__: None  # type: ignore[method-assign]
            module.training_step(first_batch(module, texts)).backward()
            learned = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
            prompts = {name: grad for name, grad in learned.items() if ".prompts." in name}
            assert all(grad is not None and grad.abs().max() > 0 for grad in prompts.values())
            parts = {name.split(".prompts.")[1].split(".")[0] for name in prompts}
            assert parts == ({"prefix"} if kind == "bert" else {"prefix", "suffix", "queries"})
            assert not any(".upper." in name for name in learned)  # the model stays frozen
            checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
            module.on_save_checkpoint(checkpoint)
            assert not any("upper" in name for name in checkpoint["state_dict"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plm_last_n_unfreeze": BLOCKS}, "has 3 blocks; use -1 to train all of them"),
        ({"plm_last_n_unfreeze": BLOCKS + 4}, "use -1"),
        ({"pooling_method": "cls"}, "in a decoder sees no other"),
        ({"pooling_method": "pooler"}, "is for a BERT with a pooler"),
        ({"use_prompt": True, "last_query_len": 2}, "is read by --pooling_method last and mean_last, not by mean"),
        ({"use_prompt": True, "pooling_method": "last", "last_query_len": 0, "post_seq_len": 3}, "read by the last q"),
        ({"use_prompt": True, "pre_seq_len": 0}, "all their lengths are 0"),
        ({"use_prompt": True, "pre_seq_len": 60}, "make 68 tokens: the language model reads 64"),
        ({"lora_r": 2, "plm_last_n_unfreeze": 1, "lora_targets": ("nowhere",)}, "are no projections of the encoder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_flags_that_do_not_fit_the_model(
    models: dict[str, Path], texts: Dataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        module_of(config_of(models["opt"], **changes), texts)


def test_flags_that_do_not_fit_one_another(models: dict[str, Path], texts: Dataset) -> None:
    with pytest.raises(UserError, match="are for decoders"):
        module_of(config_of(models["bert"], use_prompt=True, post_seq_len=2), texts)
    for changes, message in (
        ({"use_prompt": True, "pre_inference": True}, "--use_prompt changes every block's output"),
        ({"plm_last_n_unfreeze": -1, "pre_inference": True}, "-1 freezes none"),
        ({"pre_seq_len": 3}, "--pre_seq_len is for --use_prompt"),
        ({"pre_inference_batch_size": 3}, "are for --pre_inference: give it too"),
        ({"lora_r": 2}, "--lora_r updates the blocks of --plm_last_n_unfreeze"),
        ({"lora_targets": ("query",)}, "--lora_targets is for --lora_r R"),
        ({"projection_n_layers": 5}, "with 0 inner sizes it is 2"),
        ({"input_type": "id"}, "are for --input_type text, not id"),
    ):
        with pytest.raises(UserError, match=message):
            config_of(models["bert"], **changes)
    for inner, layers in (((3, 4), 4), ((3, 4), 3), ((3, 4), None)):
        config_of(models["bert"], projection_inner_sizes=inner, projection_n_layers=layers)
    with pytest.raises(UserError, match="--export_name writes a language model's vectors"):
        Config(input_type="id", learning=ItemLearningOptions(export_name="x"))
    with pytest.raises(UserError, match="--max_item_seq_len 3 must be at least 2 and --min_item_seq_len 5"):
        Config(min_item_seq_len=5, max_item_seq_len=3)


def test_ids_need_no_language_model(texts: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrec.items.language_model.find_backbone", lambda _: pytest.fail("looked for a model"))
    module = module_of(Config(input_type="id", model=SMALL), texts)
    assert not module.item_vectors()[0].any()


def test_a_dataset_without_text_is_refused(models: dict[str, Path], texts: Dataset) -> None:
    with pytest.raises(UserError, match="or give --input_type id"):
        module_of(config_of(models["bert"]), replace(texts, attributes=()))


def test_users_are_chosen_by_how_much_they_did(texts: Dataset) -> None:
    split = leave_one_out(texts)
    lengths = np.diff(texts.offsets)
    found = choose_users(split, texts, 5, 9)
    wanted = np.flatnonzero((lengths >= 5) & (lengths <= 9))
    assert found.test.users.tolist() == wanted.tolist()
    assert choose_users(split, texts, 0, None).test.users.tolist() == split.test.users.tolist()
    with pytest.raises(UserError, match="no user of texts has 90 to any number of interactions"):
        choose_users(split, texts, 90, None)


def test_names_say_what_differs() -> None:
    named: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "minilm-frozen"),
        ({"plm_last_n_unfreeze": 2, "plm_name": "facebook/opt-125m"}, "opt-125m-last2"),
        ({"plm_last_n_unfreeze": -1, "lora_r": 4}, "minilm-lora"),
    )
    for options, name in named:
        assert run_name(Config(items=ItemOptions(**options))) == name
    assert (
        run_name(Config(learning=ItemLearningOptions(item_offset=True), prompt=PromptOptions(use_prompt=True)))
        == "minilm-frozen-prompt-offset"
    )
    assert run_name(Config(input_type="id")) == "id"


def test_losses_are_what_they_were(models: dict[str, Path], texts: Dataset) -> None:
    found = {}
    kinds: dict[str, dict[str, Any]] = {
        "id, untied": {"input_type": "id", "head": "untied"},
        "frozen, tied": {},
        "last 1, sampled": {"plm_last_n_unfreeze": 1, "objective": SAMPLED},
        "prompts": {"use_prompt": True, "objective": SAMPLED},
    }
    for name, changes in kinds.items():
        is_id = changes.get("input_type") == "id"
        config = Config(model=SMALL, **changes) if is_id else config_of(models["bert"], **changes)
        module = module_of(config, texts)
        fill(module)
        module.on_train_epoch_start()
        module.train()
        data = cast(TrainDataset, make_batches(module, texts, leave_one_out(texts)).train)
        keys = list(RowSampler(data.lengths, batch_size=8, shuffle=True, seed=1))[:6]
        found[name] = train(module, (data[key] for key in keys))
    assert_unchanged(Path(__file__).parent, found)


FLAGS = ("--num_epochs", "12", "--patience", "4", "--batch_size", "32", "--sasrec_hidden_size", "16", "--lr", "0.03")


@pytest.fixture(scope="module")
def command(texts_path: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A run over a cache whose last block is trained, which nothing interrupted; its vectors are exported."""
    root = tmp_path_factory.mktemp("run")
    flags = (
        *(
            *FLAGS,
            "--plm_name",
            str(models["bert"]),
            "--plm_last_n_unfreeze",
            "1",
            "--pre_inference",
            "--plm_lr",
            "0.01",
        ),
        *("--loss", "sampled_softmax", "--num_negatives", "8", "--item_offset", "--temp", "0.2"),
        *("--export_name", "tuned", "--embedding_dir", str(root / "embedding")),
    )
    found = Command("PLMSASRec", copy_to(texts_path, root), root / "runs", flags, "bert-last1-offset")
    found.run()
    return found


def test_a_run_ends_exports_and_is_served(command: Command, tmp_path: Path) -> None:
    from seqrec.data.vectors import load_embeddings

    metrics = command.metrics()
    assert metrics["family"] == "PLMSASRec" and metrics["test"]["users"] == 90
    state = load_state(command.folder / "checkpoints" / "best.ckpt")
    assert any(".upper.model.encoder.layer.2." in name for name in state)
    assert not any("layer.0." in name or "embeddings" in name for name in state)  # frozen: in the model's own files
    assert_recommends_as_it_was_tested(command.folder, command.data)
    dataset, recommender = load_run(command.folder, command.data)
    vectors = load_embeddings("plm-tuned", dataset, command.runs.parent / "embedding")
    table = recommender.module.encode_items()  # type: ignore[operator]
    np.testing.assert_allclose(vectors, table.numpy(), rtol=0, atol=1e-6)
    # A catalogue with new items: the known ones keep their vectors, whatever their number.
    histories = [[3, 4, 5], [1, 2, 3]]
    other = load_dataset(write_dataset(tmp_path / "later", histories, 45))
    known = pl.read_parquet(command.data / "items.parquet")["title"].to_list()
    file = other.path / "items.parquet"
    titles = pl.Series("title", [*known, *(f"new thing {item}" for item in range(5))])
    pl.read_parquet(file).with_columns(titles).write_parquet(file)
    _, later = load_run(command.folder, command.data, other.path)
    grown = later.module.encode_items()  # type: ignore[operator]
    assert grown.shape == (46, 16) and bool(torch.isfinite(grown).all())
    torch.testing.assert_close(grown[:41], table, rtol=0, atol=1e-5)
    offsets = later.module.state_dict()["model.items.offsets.weight"]
    assert not offsets[41:].any() and offsets[1:41].any()


def test_vectors_that_are_there_are_refused_before_training(command: Command, tmp_path: Path) -> None:
    from PLMSASRec.module import train as train_run

    config = Config(
        data_path=command.data,
        learning=ItemLearningOptions(export_name="tuned"),
        embedding_dir=command.runs.parent / "embedding",
        training=TrainingConfig(runs_dir=tmp_path),
    )
    with pytest.raises(UserError, match=r"plm-tuned\.npy is there already: give another --export_name, or --overwrite"):
        train_run(config)
    with pytest.raises(UserError, match="--export_name"):
        ItemLearningOptions(export_name="../x")


def test_a_run_is_the_same_after_kills(command: Command, tmp_path: Path) -> None:
    again = replace(command, runs=tmp_path / "runs", flags=(*command.flags, "--overwrite"))
    again = replace(again, flags=tuple(word for word in again.flags if word not in ("--export_name", "tuned")))
    straight = replace(again, runs=tmp_path / "straight")
    straight.run()
    resumed = replace(again, flags=tuple(word for word in again.flags if word != "--overwrite"))
    assert kill_at_random_moments(resumed, np.random.default_rng(0)) >= 1
    assert_same_run(straight.folder, resumed.folder)


def test_a_run_with_weights_for_every_item_serves_no_new_ones(texts_path: Path, tmp_path: Path) -> None:
    run = Command("PLMSASRec", texts_path, tmp_path / "runs", (*FLAGS, "--num_epochs", "1", "--input_type", "id"), "id")
    run.run()
    other = write_dataset(tmp_path / "later", [[3, 4, 5]], 45)
    with pytest.raises(UserError, match="train with --input_type text --head tied to serve new items"):
        load_run(run.folder, texts_path, other)


def test_strategies_train_and_test(models: dict[str, Path], texts_path: Path, tmp_path: Path) -> None:
    flags = (*FLAGS, "--num_epochs", "2", "--plm_name", str(models["opt"]), "--plm_last_n_unfreeze", "1")
    fixed = ("--sasrec_hidden_dropout", "0", "--sasrec_attention_dropout", "0", "--lr", "0.003")
    losses = []
    for strategy in ("auto", "ddp", "deepspeed_stage_2", "deepspeed_stage_3", "fsdp", "fsdp_offload"):
        more = ("--strategy", strategy)
        run = Command("PLMSASRec", texts_path, tmp_path / strategy, (*flags, *fixed, *more), "opt-last1")
        run.run()
        assert isinstance(load_state(run.folder / "checkpoints" / "best.ckpt"), dict)
        losses.append(pl.read_csv(run.folder / "logs" / "metrics.csv")["train/loss"].to_list())
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-4)


def test_modules_are_initialised_but_the_language_model(models: dict[str, Path], texts: Dataset) -> None:
    module = module_of(config_of(models["opt"], head="untied"), texts)
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and ".lower." not in name:
            assert not part.bias.any()
            assert float(part.weight.detach().std()) == pytest.approx(0.02, rel=0.5)


def test_training_goes_on_from_an_earlier_run(
    models: dict[str, Path], texts: Dataset, texts_path: Path, tmp_path: Path
) -> None:
    plm = ("--plm_name", str(models["bert"]), "--tokenized_len", "8")
    first = Command("PLMSASRec", texts_path, tmp_path, (*FLAGS, "--num_epochs", "2", *plm), "bert-frozen")
    first.run()
    again = Command(
        "PLMSASRec",
        texts_path,
        tmp_path,
        (*FLAGS, "--num_epochs", "1", *plm, "--plm_last_n_unfreeze", "1", "--start_from", str(first.folder)),
        "bert-last1",
    )
    again.run()
    small = SasrecOptions(sasrec_hidden_size=16)
    module = module_of(config_of(models["bert"], plm_last_n_unfreeze=1, model=small), texts)
    before = plm_state(module)
    take_weights(module, first.folder, texts)
    state = load_state(first.folder / "checkpoints" / "best.ckpt")
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(before[name], tensor) for name, tensor in plm_state(module).items())
    prompted = module_of(config_of(models["bert"], model=small, prompt=PromptOptions(use_prompt=True)), texts)
    take_weights(prompted, first.folder, texts)  # a prompt is new
    assert all(torch.equal(prompted.state_dict()[name], tensor) for name, tensor in state.items())
    with pytest.raises(UserError, match=r"is of another model; they differ in model\.encoder"):
        take_weights(module_of(config_of(models["bert"]), texts), first.folder, texts)
    with pytest.raises(UserError, match=r"differ in model\.items\.offsets\.weight"):
        take_weights(module_of(config_of(models["bert"], model=small, item_offset=True), texts), first.folder, texts)
    with pytest.raises(FileNotFoundError, match=r"holds no finished run"):
        take_weights(module, tmp_path, texts)
    other = load_dataset(write_dataset(tmp_path / "other", [[1, 2, 3, 4]], 7))
    with pytest.raises(UserError, match="was trained on other items"):
        take_weights(module, first.folder, other)
