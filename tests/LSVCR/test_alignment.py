"""Alignment: batches, views, losses by loops, whole runs."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from LSVCR.align_module import open_alignment
from LSVCR.align_options import LLMOptions
from LSVCR.aligned import ALIGNED, read_learned
from LSVCR.data import Moments, read_texts
from LSVCR.losses import contrast, prefer
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Config
from LSVCR.prompting import read_templates
from LSVCR.training import open_module, take_aligned
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.paths import ROOT
from seqrec.data.batches import BatchKey
from seqrec.data.comments import Comments
from seqrec.text.backbones import MINILM, read_tokenizer
from seqrec.text.texts import load_texts
from tests import forked
from tests.interrupted import Command, kill_at_random_moments
from tests.LSVCR.aligning import SMALL, config_of, losses_of, make_llama, make_tube, opened


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    return make_tube(tmp_path_factory.mktemp("alignment"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llm"))


# Batches


def test_a_batch_holds_what_its_cases_know(comments: Comments, llama: Path) -> None:
    config = config_of(llama, phis_aug_p=0.0, chis_aug_p=0.0)
    _, cases = opened(comments, config)
    tokenizer, templates = read_tokenizer(llama), read_templates("en")
    titles = comments.dataset.item_table()["title"].to_list()
    said = comments.own.item_table()["text"].to_list()
    rows = np.array([0, len(cases) - 1, 7, len(cases) - 5])
    batch = cases[BatchKey(rows, 0, 0)]
    assert batch.for_comments.tolist() == [False, True, False, True]
    moments = Moments(cases.users[rows], cases.times[rows])
    found = cases.streams.find(moments)
    place = np.argsort(found.order)
    for number in range(4):
        whole = batch.prompts.values[slice(*batch.prompts.offsets[number : number + 2].tolist())]
        text = tokenizer.decode(whole)
        first = int(found.lengths[0][: place[number]].sum())
        videos = found.videos[first : first + found.lengths[0][place[number]]]
        for position, video in enumerate(videos[videos > 0], 1):
            line = f"{position}. video title: {titles[video - 1]}; popular comment:"
            assert tokenizer.decode(tokenizer(line, add_special_tokens=False)["input_ids"]) in text
        target = int(batch.keys[number])
        answer = said[-target - 1] if target < 0 else titles[target - 1]
        expected = tokenizer(answer, add_special_tokens=False)["input_ids"][:12]
        expected.append(tokenizer.eos_token_id)
        inside = (batch.answers >= batch.prompts.offsets[number]) & (batch.answers < batch.prompts.offsets[number + 1])
        assert batch.prompts.values[batch.answers[inside]].tolist() == expected
        assert int(batch.ends[number]) + 1 == int(batch.answers[inside][0])
        own = batch.texts.values[slice(*batch.texts.offsets[int(batch.targets[number]) :][:2].tolist())]
        assert own.tolist() == tokenizer(answer, truncation=True, max_length=16)["input_ids"]
        assert (number % 2 == 1) == (target < 0)
        watched = batch.inputs.watched
        assert watched is not None
        item = int(watched[place[number]])
        assert (item > 0) == (target < 0) and (item == 0 or comments.under[-target] == item)
    assert "write the comment under it" in tokenizer.decode(batch.prompts.values) and templates["CommRank"]
    for places, layout in zip(batch.inputs.places, batch.inputs.layouts, strict=True):
        for start, end in zip(layout.offsets[:-1].tolist(), layout.offsets[1:].tolist(), strict=True):
            drawn = places[start:end].tolist()
            assert drawn == sorted(set(drawn)) and drawn[0] >= 0 and drawn[-1] < 6


def test_the_two_views_differ_by_chance(comments: Comments, llama: Path) -> None:
    _, same = opened(comments, config_of(llama, phis_aug_p=0.0, chis_aug_p=0.0))
    _, all_differ = opened(comments, config_of(llama, phis_aug_p=1.0, chis_aug_p=1.0, inter_aug_p=1.0))
    rows = np.arange(len(same))
    key = BatchKey(rows, 0, 0)
    found = same.streams.find(Moments(same.users[rows], same.times[rows]))
    order, hot = rows[found.order], same.streams.hot
    told, read = same._hot_comments(found.videos, found.lengths[0], key.draws(1, order, "views"))
    assert (told == read).all() and (hot[found.videos] == told[:, None]).any(axis=1).all()
    told, read = all_differ._hot_comments(found.videos, found.lengths[0], key.draws(1, order, "views"))
    several = (hot[found.videos] > 0).sum(axis=1) > 1
    assert (told != read)[several].all() and (told == read)[~several].all() and several.any()
    told, read = same._taken_comments(found, key.draws(1, order, "views"))
    assert (told == read).all()
    for entry in range(len(found.entries)):
        own = set(found.taken[found.owner == entry].tolist())
        shown = [c for c in told[entry].tolist() if c]
        assert len(shown) == min(3, len(own)) and set(shown) <= own
    told, read = all_differ._taken_comments(found, key.draws(1, order, "views"))
    for entry, item in enumerate(found.entries.tolist()):
        own = set(found.taken[found.owner == entry].tolist())
        cards = [c for c in [*told[entry].tolist(), *read[entry].tolist()] if c]
        assert len(cards) == 2 * min(3, len(own)) and (told[entry] > 0).sum() == (read[entry] > 0).sum()
        others = [c for c in cards if c not in own]
        assert len(others) == min(3, len(own)) and len(set(cards) & own) == min(3, len(own))
        popular = set(all_differ.popular[item].tolist()) - own - {0}
        assert not popular or set(others) <= popular


def test_no_more_cases_than_wanted(comments: Comments, llama: Path) -> None:
    _, every = opened(comments, config_of(llama))
    _, some = opened(comments, config_of(llama, train_num=20))
    assert len(some) == 40 and len(every) > 40 and len(some.video_targets) == 20
    assert len({(u, t) for u, t in zip(some.users[:20], some.times[:20], strict=True)}) == 20


# Models and losses


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def by_loops(s: Tensor, r: Tensor, said: Tensor, y: Tensor, keys: list[int], temperature: float) -> dict[str, float]:
    """Return three of the losses from (B, D) vectors of any length, user by user."""
    B = len(s)

    def nce(a: Tensor, b: Tensor, hide: bool) -> float:
        total = 0.0
        for i in range(B):
            others = [j for j in range(B) if j == i or not (hide and keys[j] == keys[i])]
            exps = [math.exp(cosine(a[i], b[j]) / temperature) for j in others]
            total -= math.log(math.exp(cosine(a[i], b[i]) / temperature) / sum(exps))
        return total / B

    bhv = 0.0
    for i in range(B):
        first, second = (math.exp(cosine(said[i], x[i]) / temperature) for x in (s, r))
        bhv -= math.log(first / (first + second))
    return {"rec": nce(s, y, True), "pref": (nce(s, said, False) + nce(said, s, False)) / 2, "bhv": bhv / B}


def test_the_losses_are_their_equations(comments: Comments, llama: Path) -> None:
    torch.manual_seed(0)
    s, r, said, y = (torch.randn(6, 5, dtype=torch.float64) for _ in range(4))
    keys = torch.tensor([3, -3, 4, 3, 5, -3])
    expected = by_loops(s, r, said, y, keys.tolist(), 0.5)
    s1, r1, said1, y1 = (F.normalize(x, dim=1) for x in (s, r, said, y))
    same = (keys == keys[:, None]) & ~torch.eye(6, dtype=torch.bool)
    assert float(contrast(s1, y1, 0, 0.5, same)) == pytest.approx(expected["rec"], rel=1e-10)
    both = (contrast(s1, said1, 0, 0.5) + contrast(said1, s1, 0, 0.5)) / 2
    assert float(both) == pytest.approx(expected["pref"], rel=1e-10)
    assert float(prefer(said1, s1, r1, 0.5)) == pytest.approx(expected["bhv"], rel=1e-10)
    # And a step puts them together.
    weights = {"lm_loss_weight": 0.3, "rec_loss_weight": 0.7, "pref_loss_weight": 0.2, "bhv_loss_weight": 1.1}
    module, cases = opened(comments, config_of(llama, **weights))
    batch = cases[BatchKey(np.array([0, 1, 2, len(cases) - 1, len(cases) - 2]), 0, 0)]
    users, lm = module.model.read_users(batch)
    s, r, y = module.model.read_histories(batch)
    told = by_loops(s.detach(), r.detach(), users.detach(), y.detach(), batch.keys.tolist(), 0.07)
    told["lm"] = float(lm.detach())
    found = losses_of(module, batch)
    for name, value in told.items():
        assert found[f"train/{name}"] == pytest.approx(value, rel=2e-4, abs=1e-5), name
    assert found["returned"] == pytest.approx(sum(told[n.split("_")[0]] * w for n, w in weights.items()), rel=2e-4)


def test_a_mixed_batch_is_its_cases_one_by_one(comments: Comments, llama: Path) -> None:
    module, cases = opened(comments, config_of(llama))
    rows = np.array([4, len(cases) - 3, 0, len(cases) - 1])
    batch = cases[BatchKey(rows, 2, 0)]
    users, _ = module.model.read_users(batch)
    together = [users, *module.model.read_histories(batch)]
    for number, row in enumerate(rows):
        one = cases[BatchKey(np.array([row]), 2, 5)]
        users, _ = module.model.read_users(one)
        for ours, alone in zip(together, [users, *module.model.read_histories(one)], strict=True):
            torch.testing.assert_close(ours[number], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1, -1])
def test_what_learns(n: int, comments: Comments, llama: Path) -> None:
    llm = LLMOptions(model_name_or_path=str(llama), llm_last_n_unfreeze=n, lora_r=0)
    module, cases = opened(comments, config_of(llama, llm=llm))
    module.model.train()
    batch = cases[BatchKey(np.arange(4), 0, 0)]
    losses_of(module, batch)
    module.training_step(batch).backward()
    blocks = {0: 0, 1: 1, -1: 3}[n]
    learned = {name for name, p in module.named_parameters() if p.grad is not None and ".llm." in name}
    assert len({name.split("layers.")[1].split(".")[0] for name in learned}) == blocks
    assert not any("embed" in name or ".norm." in name for name in learned)
    assert all(p.grad is not None for name, p in module.named_parameters() if p.requires_grad and ".llm." not in name)
    narrow, _ = opened(comments, config_of(llama, rec_loss_weight=0.0, pref_loss_weight=0.0, bhv_loss_weight=0.0))
    assert not any(
        p.requires_grad for p in [*narrow.model.sr.parameters(), *narrow.model.contrast_adapter.parameters()]
    )


# Runs


def flags_of(comments: Comments, llama: Path, *flags: str) -> tuple[str, ...]:
    return (
        *("--model_name_or_path", str(llama), "--hidden_units", "8", "--inner_size", "12", "--maxlen", "6"),
        *("--llm_emb_size", "6", "--max_his_len", "4", "--tokenized_len", "16", "--max_source_length", "300"),
        *("--train_num", "40", "--save_steps", "2", "--lr", "0.01", *flags),
    )


def align_command(comments: Comments, llama: Path, runs: Path, *flags: str) -> Command:
    found = Command("LSVCR", comments.dataset.path, runs, flags_of(comments, llama, *flags), "align-llama")
    return replace(found, script="align.py", result=ALIGNED)


def test_an_alignment_that_is_killed_goes_on_as_if_it_was_not(comments: Comments, llama: Path, tmp_path: Path) -> None:
    straight, killed = (align_command(comments, llama, tmp_path / name) for name in ("straight", "killed"))
    straight.run()
    assert kill_at_random_moments(killed, np.random.default_rng(0)) >= 1
    expected, found = read_learned(straight.folder), read_learned(killed.folder)
    assert expected.keys() == found.keys() and any("lora_" in name for name in expected)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not any("embed_tokens" in name or "base_layer" in name for name in expected)


def open_second(comments: Comments, config: Config) -> VideoModule | CommentModule:
    return open_module(config, comments, read_texts(comments, config))[0]


def test_vectors_and_the_second_stage_start_from_an_alignment(comments: Comments, llama: Path, tmp_path: Path) -> None:
    command = align_command(comments, llama, tmp_path)
    command.run()
    folder = tmp_path / "embedding"
    flags = ("--run", command.folder, "--full", "--embedding_dir", folder, "--part_items", "50")
    forked.run_script("LSVCR/encode.py", *flags, output=tmp_path / "said")
    learned = read_learned(command.folder)
    model, _ = open_alignment(config_of(llama, llm=LLMOptions(model_name_or_path=str(llama))), comments)
    model.take(learned)
    for data in (comments.dataset, comments.own):
        tokens = load_texts(data, read_tokenizer(llama), 16)
        own = np.load(folder / data.name / "aligned-full.npy")
        narrow = np.load(folder / data.name / "aligned.npy")
        assert not own[0].any() and not narrow[0].any()
        for item in (1, 2, data.num_items // 2, data.num_items):
            with torch.no_grad():
                direct = model.llm.encode(tokens.read(np.array([item])))
                mapped = model.sr.text_mlp(direct)
            torch.testing.assert_close(torch.from_numpy(own[item]), direct[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(torch.from_numpy(narrow[item]), mapped[0], atol=1e-5, rtol=1e-4)
    for task in ("Rec", "CommRank"):
        for text, maxlen in (("aligned", 6), ("aligned-full", 9), ("aligned", 4)):
            shape = replace(SMALL, maxlen=maxlen)
            module = open_second(comments, Config(task=task, text=text, embedding_dir=folder, model=shape))
            fresh = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
            take_aligned(module.model, command.folder)
            for name, tensor in module.model.state_dict().items():
                if name.startswith(("ids", "gate")):
                    assert torch.equal(tensor, fresh[name])
                    continue
                given = learned[f"sr.{name}"]
                if "places" in name:
                    given = torch.cat([given, given.mean(dim=0).expand(max(maxlen - 6, 0), -1)])[:maxlen]
                assert torch.equal(tensor, given), name
            assert any(name.startswith("text_mlp") for name in fresh) == (text == "aligned-full")
    module = open_second(comments, Config(text="aligned", embedding_dir=folder, model=replace(SMALL, num_blocks=1)))
    take_aligned(module.model, command.folder)  # fewer blocks are a part of it
    module = open_second(comments, Config(text="aligned", embedding_dir=folder, model=replace(SMALL, inner_size=9)))
    with pytest.raises(UserError, match="another architecture"):
        take_aligned(module.model, command.folder)
    with pytest.raises(MissingFileError, match=r"no finished run of align\.py"):
        take_aligned(module.model, tmp_path)


def test_two_processes_align_like_one(comments: Comments, llama: Path, tmp_path: Path) -> None:
    plain = ("--dropout_rate", "0", "--lora_dropout", "0", "--accelerator", "cpu", "--batch_size", "5")
    one = align_command(comments, llama, tmp_path / "one", *plain)
    one.run()
    expected = read_learned(one.folder)
    for strategy, precision in (
        ("auto", "32-true"),
        ("deepspeed_stage_2", "32-true"),
        ("deepspeed_stage_2", "bf16-mixed"),
    ):
        given = *plain, "--strategy", strategy, "--precision", precision
        two = align_command(comments, llama, tmp_path / strategy / precision, *given)
        _, *flags = two.arguments()
        line = [Path(sys.executable).with_name("torchrun"), "--nproc_per_node=2", ROOT / "LSVCR" / "train.py", *flags]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = read_learned(two.folder)
        assert found.keys() == expected.keys()
        # Weights move by up to 0.1; where a gradient vanishes, Adam makes steps of its rounding.
        for name, tensor in expected.items():
            assert found[name].dtype == torch.float32
            if precision == "32-true" and not name.endswith(
                ("score.4.bias", "key.bias")
            ):  # softmaxes take them away, so their gradients are noise
                torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=1e-2, msg=f"{strategy}: {name}")
        if precision == "bf16-mixed":
            apart = torch.cat([(found[name] - tensor).flatten() for name, tensor in expected.items()]).abs()
            assert 0 < apart.mean() < 0.01 and apart.max() < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lm_loss_weight": 0.0, "rec_loss_weight": 0.0, "pref_loss_weight": 0.0, "bhv_loss_weight": 0.0}, "are 0"),
        ({"max_his_len": 7}, "--max_his_len 7 is more than --maxlen 6"),
        ({"batch_size": 1}, "batch_size"),
        ({"inter_aug_p": 1.5}, "inter_aug_p"),
    ],
)
def test_contradictions_of_alignment(options: dict[str, Any], message: str, llama: Path) -> None:
    with pytest.raises(UserError, match=message):
        config_of(llama, **options)


def test_what_does_not_fit_is_refused(comments: Comments, llama: Path) -> None:
    for options, message in (
        ({"max_source_length": 60}, "leaves less than --tokenized_len"),
        ({"model": replace(SMALL, llm_emb_size=32)}, "less than the width of the language model, 32"),
        ({"llm": LLMOptions(model_name_or_path=str(llama), llm_last_n_unfreeze=4)}, "there are 3 blocks of"),
        ({"llm": LLMOptions(model_name_or_path=MINILM)}, "no token that ends a text|no decoder"),
    ):
        with pytest.raises(UserError, match=message):
            open_alignment(config_of(llama, **options), comments)
