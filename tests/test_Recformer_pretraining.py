"""Masking, the contrast, the token cache and whole pretraining runs on a tiny random backbone."""

import json
import shutil
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from Recformer.backbone import find_backbone, load_backbone, load_pretraining, load_weights
from Recformer.convert_pretrain_ckpt import Config as ConvertConfig
from Recformer.convert_pretrain_ckpt import main as convert
from Recformer.masking import Masked, WordMasker
from Recformer.pretrain import Config, PretrainModule
from Recformer.pretraining import Part, PretrainBatch, PretrainDataset, Side, contrast
from Recformer.text import ItemTokens, TokenBatch, build_sequences, tokenize_items
from seqrec.dataset import Dataset, Histories
from seqrec.embeddings import load_embeddings
from seqrec.ragged import BatchKey, Rounds, RowSampler
from seqrec.sharding import consolidate
from seqrec.training import load_state
from tests import forked
from tests.conftest import write_dataset
from tests.interrupted import assert_same_run

LIMITS: dict[str, Any] = {"max_token_num": 40, "max_attr_length": 8}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_backbone("minilm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def held_out_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain of its own: 30 users over 25 items."""
    generator = np.random.default_rng(3)
    histories = [generator.integers(1, 26, size=5).tolist() for _ in range(30)]
    return write_dataset(tmp_path_factory.mktemp("data") / "other", histories, 25)


def all_events(dataset: Dataset) -> Histories:
    return Histories(dataset.items, np.arange(dataset.num_users), dataset.offsets[:-1], dataset.offsets[1:])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(find_backbone("minilm"))


@pytest.fixture(scope="module")
def items(tiny: Dataset, tokenizer: Any) -> ItemTokens:
    return tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, 8)


@pytest.fixture(scope="module")
def histories(tiny: Dataset, items: ItemTokens) -> TokenBatch:
    return build_sequences(tiny.items, tiny.offsets[:-1], tiny.offsets[1:], items)


def words_of(batch: TokenBatch, row: int, tokenizer: Any) -> list[list[int]]:
    """Return the places of each word of a sequence, by the definition, one token after another."""
    start, end = int(batch.offsets[row]), int(batch.offsets[row + 1])
    words: list[list[int]] = []
    for t in range(start + 1, end):
        same_text = t > start + 1 and all(
            field[t] == field[t - 1] for field in (batch.token_type_ids, batch.item_position_ids)
        )
        if same_text and tokenizer.convert_ids_to_tokens(int(batch.input_ids[t])).startswith("##"):
            words[-1].append(t)
        else:
            words.append([t])
    return words


def test_whole_words_are_hidden_about_as_many_as_asked_for(histories: TokenBatch, tokenizer: Any) -> None:
    masked = WordMasker.of(tokenizer)(histories, 0.3, np.random.default_rng(0))
    asked = set(masked.asked.tolist())
    assert masked.asked.tolist() == sorted(asked)
    assert torch.equal(masked.labels, histories.input_ids[masked.asked].long())
    partial = 0
    for row in range(len(histories)):
        words = words_of(histories, row, tokenizer)
        hidden = [word for word in words if word[0] in asked]
        assert all(set(word) <= asked for word in hidden)
        assert not any(set(word) & asked for word in words if word[0] not in asked)
        budget = round((int(histories.lengths[row]) - 1) * 0.3)
        size = sum(map(len, hidden))
        assert size <= budget or len(hidden) == 1
        partial += budget - size
    assert not asked & set(histories.offsets[:-1].tolist())
    assert partial < len(histories)  # a word that did not fit in costs its sequence less than a token on average


def test_hidden_tokens_are_mostly_masked_and_the_rest_left_alone(histories: TokenBatch, tokenizer: Any) -> None:
    masker, counts = WordMasker.of(tokenizer), np.zeros(3)
    for seed in range(40):
        masked = masker(histories, 0.3, np.random.default_rng(seed))
        shown = masked.input_ids[masked.asked]
        kept, mask = shown == masked.labels, shown == tokenizer.mask_token_id
        counts += [mask.sum(), kept.sum(), (~kept & ~mask).sum()]
        untouched = torch.ones(len(histories.input_ids), dtype=torch.bool)
        untouched[masked.asked] = False
        assert torch.equal(masked.input_ids[untouched], histories.input_ids[untouched])
        assert not set(shown[~kept & ~mask].tolist()) & set(tokenizer.all_special_ids)
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.02)


def test_words_of_byte_level_bpe_begin_at_blanks_and_punctuation() -> None:
    class Tokenizer:
        mask_token_id, all_special_ids, name_or_path = 5, [5], "bpe"

        def __len__(self) -> int:
            return 6

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["red", "\u0120red", "dish", "-", "1", "<mask>"]

    assert WordMasker.of(Tokenizer()).continues.tolist() == [True, False, True, False, True, False]


def make_batch(tiny: Dataset, items: ItemTokens, tokenizer: Any, part_size: int, rows: int = 12) -> PretrainBatch:
    data = PretrainDataset(all_events(tiny), items, 40, WordMasker.of(tokenizer), 0.15, part_size, seed=1)
    return data[BatchKey(np.arange(rows), 0, 0)]


def test_a_target_is_drawn_from_the_later_half_and_its_history_precedes_it(tiny: Dataset, items: ItemTokens) -> None:
    data = PretrainDataset(all_events(tiny), items, 1000, None, 0.15, 100, seed=1)
    rows, seen = np.arange(30), set()
    for epoch in range(60):
        batch = data[BatchKey(rows, epoch, 0)]
        tokens = batch.parts[0].histories.plain
        counts = [int(p.max()) for p in tokens.item_position_ids.split(tokens.lengths.tolist())]
        assert counts == sorted(counts)
        seen |= {(count, target) for count, target in zip(counts, batch.target_ids.tolist(), strict=True)}
    expected = set()
    for row in rows:
        start, length = data.sequences.starts[row], data.sequences.lengths[row]
        for at in range(max((length - 1) // 2, 1), length):
            expected.add((at, int(data.sequences.items[start + at])))
    assert seen == expected


def pretrain_module(backbone: Path, items: ItemTokens, mlm_pass: Any = "shared", **flags: Any) -> PretrainModule:
    torch.manual_seed(0)
    model, _ = load_pretraining(str(backbone), None, mlm_pass, attention_window=64, **LIMITS)
    for parameter in model.parameters():  # as it comes, all texts have nearly one vector, and gradients nearly cancel
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    config = Config(valid_dataset="other", mlm_pass=mlm_pass, **flags)
    module = PretrainModule(model, items, config, 1)
    module.model.eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.all_gather = lambda value, **kwargs: value  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("mlm_pass", ["shared", "separate"])
def test_the_loss_is_that_of_the_equations(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path, mlm_pass: str
) -> None:
    module = pretrain_module(backbone, items, mlm_pass)
    batch = make_batch(tiny, items, tokenizer, part_size=100)
    loss = module.training_step(batch)

    encoder, head = module.model.longformer, module.model.lm_head
    part, vectors, mlm = batch.parts[0], [], torch.zeros(())
    for side in part:
        assert side.masked is not None
        hidden = TokenBatch(
            side.masked.input_ids, side.plain.token_type_ids, side.plain.item_position_ids, side.plain.offsets
        )
        read = encoder(hidden, all_tokens=True)
        vectors.append(read.pooled if mlm_pass == "shared" else encoder(side.plain).pooled)
        states = head.layer_norm(F.gelu(head.dense(read.tokens[side.masked.asked])))
        logits = states @ encoder.embeddings.word_embeddings.weight.T + head.bias
        mlm = mlm + F.cross_entropy(logits[:, 1:], side.masked.labels - 1)
    scores = F.cosine_similarity(vectors[0][:, None], vectors[1][None], dim=2) / 0.05
    total = torch.zeros(())
    for i, target in enumerate(batch.target_ids.tolist()):
        others = [j for j, other in enumerate(batch.target_ids.tolist()) if j == i or other != target]
        total = total + scores[i, others].logsumexp(0) - scores[i, i]
    expected = total / len(scores) + 0.1 * mlm
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def gradients(module: PretrainModule, batch: PretrainBatch) -> dict[str, Tensor]:
    module.zero_grad()
    module.training_step(batch).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_close_gradients(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for name in left:
        off, scale = float((left[name] - right[name]).abs().max()), float(right[name].abs().max())
        # A key's bias shifts all scores of a query alike: its gradient is zero, and what is left of it is rounding.
        assert off <= 1e-3 * scale + 1e-7 * largest, f"{name}: off by {off} of {scale}"


def cut_tokens(batch: TokenBatch, rows: range) -> TokenBatch:
    a, b = int(batch.offsets[rows.start]), int(batch.offsets[rows.stop])
    ids, types, items = (x[a:b] for x in (batch.input_ids, batch.token_type_ids, batch.item_position_ids))
    return TokenBatch(ids, types, items, batch.offsets[rows.start : rows.stop + 1] - a)


def cut_part(part: Part, rows: range) -> Part:
    """Return some rows of a part, hidden where they were."""
    sides = []
    for side in part:
        assert side.masked is not None
        a, b = int(side.plain.offsets[rows.start]), int(side.plain.offsets[rows.stop])
        inside = (side.masked.asked >= a) & (side.masked.asked < b)
        masked = Masked(side.masked.input_ids[a:b], side.masked.asked[inside] - a, side.masked.labels[inside])
        sides.append(Side(cut_tokens(side.plain, rows), masked))
    return Part(*sides)


def test_reading_a_batch_in_parts_changes_nothing(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    whole = make_batch(tiny, items, tokenizer, part_size=100)
    parts = whole._replace(parts=[cut_part(whole.parts[0], rows) for rows in (range(5), range(5, 10), range(10, 12))])
    torch.testing.assert_close(module.training_step(parts), module.training_step(whole), rtol=1e-5, atol=1e-5)
    assert_close_gradients(gradients(module, parts), gradients(module, whole))


def one_of_two(rank: int, port: int, batch: PretrainBatch, backbone: Path, items: ItemTokens, out: Path) -> None:
    """Write what one process gets as loss and, averaged over both as DDP does, as gradients."""
    from lightning_fabric.utilities.distributed import _all_gather_ddp_if_available

    torch.distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    module = pretrain_module(backbone, items)
    module.all_gather = partial(_all_gather_ddp_if_available, group=None)  # type: ignore[method-assign]
    type(module).global_rank = rank  # type: ignore[assignment]
    rows = range(7) if rank == 0 else range(7, 12)
    mine = PretrainBatch([cut_part(batch.parts[0], rows)], batch.target_ids[rows.start : rows.stop])
    loss = module.training_step(mine)
    loss.backward()
    found = {"loss": loss.detach()} | {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    for tensor in found.values():
        torch.distributed.all_reduce(tensor)
    torch.save({name: tensor / 2 for name, tensor in found.items()}, out)


def test_two_processes_have_the_loss_and_the_gradients_of_one(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path, tmp_path: Path
) -> None:
    whole = make_batch(tiny, items, tokenizer, part_size=100)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        forked.start(one_of_two, r, port, whole, backbone, items, tmp_path / f"{r}.pt", output=tmp_path / f"said.{r}")
        for r in range(2)
    ]
    module = pretrain_module(backbone, items)
    alone = gradients(module, whole) | {"loss": module.training_step(whole).detach()}
    for rank, process in enumerate(processes):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / f"said.{rank}").read_text()
        assert_close_gradients(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)


def test_parts_hold_their_dropout_when_they_are_read_again(
    tiny: Dataset, items: ItemTokens, tokenizer: Any, backbone: Path
) -> None:
    module = pretrain_module(backbone, items)
    module.model.train()
    batch = make_batch(tiny, items, tokenizer, part_size=4)
    torch.manual_seed(5)
    first = gradients(module, batch)
    torch.manual_seed(5)
    assert_close_gradients(first, gradients(module, batch))


def test_the_same_item_is_no_negative_of_itself() -> None:
    histories, targets = torch.eye(4)[:3], torch.eye(4)[:3] + 0.1
    ids = torch.tensor([7, 7, 9])
    losses, _ = contrast(histories, targets, ids, ids, 0, 1.0)
    scores = F.normalize(histories, dim=1) @ F.normalize(targets, dim=1).T
    for i, others in ((0, [0, 2]), (1, [1, 2]), (2, [0, 1, 2])):
        torch.testing.assert_close(losses[i], scores[i, others].logsumexp(0) - scores[i, i])


def flags(corpus: Path, valid: Path, backbone: Path, runs: Path, *more: str) -> list[str]:
    paths = ["--data_path", corpus, "--valid_path", valid, "--model_name_or_path", backbone, "--runs_dir", runs]
    fixed = ["--num_epochs", "2", "--lr", "0.003", "--no-progress_bar", "--batch_size", "8", "--contrast_batch", "16"]
    limits = [text for key, value in LIMITS.items() for text in (f"--{key}", str(value))]
    return [*map(str, paths), *fixed, *limits, "--valid_step", "4", "--accelerator", "cpu", *more]


NAME = "Recformer/other/pretraining-on-tiny-seed42"


@pytest.fixture(scope="module")
def pretrained(tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a pretraining run."""
    folder = tmp_path_factory.mktemp("pretrained")
    given = flags(tiny_path, held_out_path, backbone, folder)
    forked.run_script("Recformer/pretrain.py", *given, output=folder / "log")
    return folder


def test_pretraining_learns_and_what_it_writes_can_be_finetuned(pretrained: Path, backbone: Path) -> None:
    rows = [line.split(",") for line in (pretrained / NAME / "logs/metrics.csv").read_text().splitlines()]
    loss = rows[0].index("train/contrast")
    assert len(rows) == 1 + -(-2 * 6 // 4)  # 2 epochs of 6 batches, in rounds of 4
    assert float(rows[-1][loss]) < float(rows[1][loss])
    model, _ = load_backbone(str(backbone), attention_window=64, **LIMITS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, pretrained / NAME / "checkpoints/best.ckpt")
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(moved) > len(before) / 2


def test_a_killed_pretraining_ends_as_if_it_had_not_been(
    pretrained: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--resume")
    for done in (1, 2):
        curve = tmp_path / NAME / "logs/metrics.csv"
        process = forked.start_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
        while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > done):
            time.sleep(0.01)
        process.kill()
        process.join()
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    assert_same_run(pretrained / NAME, tmp_path / NAME)


@pytest.fixture(scope="module")
def sharded(tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a pretraining run under ZeRO-2 on the CPU."""
    folder = tmp_path_factory.mktemp("sharded")
    given = flags(tiny_path, held_out_path, backbone, folder, "--strategy", "deepspeed_stage_2")
    forked.run_script("Recformer/pretrain.py", *given, output=folder / "log")
    return folder


def test_zero_2_trains_as_one_process_does(sharded: Path, pretrained: Path) -> None:
    last = [load_state(folder / NAME / "checkpoints/last.ckpt") for folder in (sharded, pretrained)]
    assert last[0].keys() == last[1].keys()
    for name in last[0]:
        torch.testing.assert_close(last[0][name], last[1][name], rtol=0, atol=2e-3)


def test_zero_2_to_a_finetuned_model(
    sharded: Path, tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "deepspeed"
    shutil.copytree(sharded / NAME / "checkpoints/best.ckpt", folder)
    # As its users run it: `python zero_to_fp32.py . pytorch_model.bin` in the folder.
    subprocess.run(
        [sys.executable, "zero_to_fp32.py", ".", "pytorch_model.bin"], cwd=folder, check=True, capture_output=True
    )
    outputs = []
    for number, source in enumerate(
        (folder, folder / "pytorch_model.bin", folder / "pytorch_model.bin/pytorch_model.bin")
    ):
        out = tmp_path / f"{number}.bin"
        forked.run_script(
            "Recformer/convert_pretrain_ckpt.py",
            *("--pretrained_ckpt_path", source, "--longformer_type", backbone),
            *("--recformer_output_path", out, "--recformerseqrec_output_path", tmp_path / f"{number}-whole.bin"),
            output=tmp_path / "log",
        )
        outputs.append(torch.load(out, weights_only=True))
    expected = load_state(sharded / NAME / "checkpoints/best.ckpt")
    for output in outputs:
        for name, tensor in output.items():
            assert torch.equal(tensor, expected[f"model.longformer.{name}"]), name
    folder_model, _ = load_backbone(str(tmp_path / "0"), **LIMITS)
    assert all(torch.equal(tensor, outputs[0][name]) for name, tensor in folder_model.state_dict().items())
    limits = [text for key, value in LIMITS.items() for text in (f"--{key}", str(value))]
    forked.run_script(
        "Recformer/finetune.py",
        *("--data_path", tiny_path, "--model_name_or_path", backbone, "--pretrain_ckpt", tmp_path / "0.bin"),
        *("--runs_dir", tmp_path / "runs", "--embedding_dir", tmp_path / "embedding", "--no-progress_bar"),
        *("--num_epochs", "1", "--accelerator", "cpu", *limits),
        output=tmp_path / "log",
    )
    vectors = [load_embeddings(name, tiny, tmp_path / "embedding") for name in ("longformer", "pretrain", "finetune")]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-4


def test_a_killed_zero_2_run_ends_as_if_it_had_not_been(
    sharded: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--strategy", "deepspeed_stage_2", "--resume")
    curve = tmp_path / NAME / "logs/metrics.csv"
    process = forked.start_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > 1):
        time.sleep(0.01)
    process.kill()
    process.join()
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    for name in ("best", "last"):
        states = [load_state(folder / NAME / f"checkpoints/{name}.ckpt") for folder in (sharded, tmp_path)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    metrics = [json.loads((folder / NAME / "metrics.json").read_text()) for folder in (sharded, tmp_path)]
    for key in ("test", "valid", "best_epoch", "epochs"):
        assert metrics[0][key] == metrics[1][key]


def test_a_sharded_checkpoint_that_is_more_than_data_is_not_read(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deepspeed"
    shutil.copytree(sharded / NAME / "checkpoints/best.ckpt", folder)
    file = next(folder.glob("checkpoint/*model_states.pt"))
    torch.save({"module": {}, "code": Path()}, file)
    with pytest.raises(ValueError, match="no complete DeepSpeed checkpoint"):
        consolidate(folder)
    with pytest.raises(ValueError, match="give the folder that has the file `latest`"):
        consolidate(tmp_path)


def test_conversion_says_what_does_not_fit(pretrained: Path, backbone: Path, tmp_path: Path) -> None:
    best = load_state(pretrained / NAME / "checkpoints/best.ckpt")
    del best["model.longformer.encoder.layer.0.output.dense.weight"]
    torch.save({f"_forward_module.{name}": tensor for name, tensor in best.items()}, tmp_path / "broken.bin")
    config = ConvertConfig(tmp_path / "broken.bin", None, str(backbone), tmp_path / "a.bin", tmp_path / "b.bin")
    with pytest.raises(ValueError, match=r"1 missing: longformer.encoder.layer.0.output.dense.weight"):
        convert(config)
    assert not (tmp_path / "a.bin").exists()


def test_frozen_word_embeddings_come_from_the_backbone_only_where_they_are_missing(
    pretrained: Path, backbone: Path, tmp_path: Path
) -> None:
    state = load_state(pretrained / NAME / "checkpoints/best.ckpt")
    word = "model.longformer.embeddings.word_embeddings.weight"
    plain = load_backbone(str(backbone), attention_window=64, **LIMITS)[0].embeddings.word_embeddings.weight
    for kept in (True, False):
        given = {name: tensor for name, tensor in state.items() if kept or name != word}
        torch.save({"module": {f"_forward_module.{name}": tensor for name, tensor in given.items()}}, tmp_path / "a.pt")
        convert(ConvertConfig(tmp_path / "a.pt", None, str(backbone), tmp_path / "a.bin", tmp_path / "b.bin"))
        found = torch.load(tmp_path / "a.bin", weights_only=True)["embeddings.word_embeddings.weight"]
        assert torch.equal(found, state[word] if kept else plain)


def test_pretraining_goes_on_from_another_run(
    pretrained: Path, tiny_path: Path, held_out_path: Path, backbone: Path, tmp_path: Path
) -> None:
    last = pretrained / NAME / "checkpoints/last.ckpt"
    given = flags(tiny_path, held_out_path, backbone, tmp_path, "--num_epochs", "3", "--ckpt", str(last))
    forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")
    curves = [
        [line.split(",") for line in (folder / NAME / "logs/metrics.csv").read_text().splitlines()]
        for folder in (pretrained, tmp_path)
    ]
    assert len(curves[0]) < len(curves[1])
    assert curves[1][: len(curves[0])] == curves[0]
    with pytest.raises(RuntimeError, match=r"--ckpt .*nowhere does not exist: give checkpoints/last.ckpt"):
        given = [*given, "--overwrite", "--ckpt", str(tmp_path / "nowhere")]
        forked.run_script("Recformer/pretrain.py", *given, output=tmp_path / "log")


def test_a_round_goes_on_where_the_last_one_ended() -> None:
    rows = RowSampler(np.ones(23, dtype=np.int64), batch_size=5, shuffle=True, seed=3)
    whole = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        whole += [(key.epoch, key.number, key.rows.tolist()) for key in rows]
    rounds = Rounds(RowSampler(np.ones(23, dtype=np.int64), batch_size=5, shuffle=True, seed=3), 4, 3)
    cut = []
    for number in range(rounds.count):
        rounds.set_epoch(number)
        keys = list(rounds)
        assert len(keys) == len(rounds)
        cut += [(key.epoch, key.number, key.rows.tolist()) for key in keys]
    assert cut == whole


def test_bad_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="valid_dataset"):
        Config()
    with pytest.raises(ValueError, match="mlm_probability"):
        Config(valid_dataset="x", mlm_probability=1.0)
    with pytest.raises(ValueError, match="valid_step"):
        Config(valid_dataset="x", valid_step=0)
