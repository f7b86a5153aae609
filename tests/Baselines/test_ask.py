"""Language models that rank candidates: likelihoods by whole forward passes, answers, and a server that misbehaves."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from Baselines.ask import main
from Baselines.ask_options import Config, ServerOptions
from Baselines.asking import NEXT, find_candidates
from Baselines.counting import run_baseline
from Baselines.kept import Kept
from Baselines.likelihood import Likelihood
from Baselines.listing import LocalChat, read_order
from Baselines.options import Config as BaselineConfig
from Baselines.server import Server
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.metrics import OTHER_RANKS, RANKS
from seqrec.text.backbones import read_tokenizer
from seqrec.training.restore import load_run
from tests.tiny_models import write_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("llm") / "llama", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    tokenizer = read_tokenizer(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


def config_of(data: Path, llama: Path, runs: Path, **options: Any) -> Config:
    given = {"test_users": 12, "protocol": EvaluationProtocol(sample_size=5), "progress_bar": False}
    return Config(data_path=data, model_name_or_path=str(llama), runs_dir=runs, **{**given, **options})


def plainly(llama: Path, prompt: list[int], title: list[int]) -> float:
    model = transformers.LlamaForCausalLM.from_pretrained(llama).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *title]])).logits[0].log_softmax(dim=1)
    return float(sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(title)))


def gain(llama: Path, model: Likelihood, titles: list[str], read: list[int], item: int, likelihood: str) -> float:
    """Return the score of an item after some, whose title is cut after four tokens."""
    title = [*model.tokens(titles[item])[:4], *model.tokens("\n")]
    parts = []
    for history in ("".join(f"{titles[i]}\n" for i in read), ""):
        total = plainly(llama, model.tokens(NEXT.format(history=history)), title)
        parts.append(total if likelihood == "sum" else total / len(title))
    return parts[0] - parts[1] * (likelihood == "gain")


def test_likelihoods_are_those_of_whole_passes(llama: Path) -> None:
    model = Likelihood(str(llama))
    prompt, titles = [9, 8, 7, 20], [[5, 6, 7], [8], [4, 4, 7, 30]]
    for before in (prompt, prompt[:1]):
        found, lengths = model.score(before, titles)
        start = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
        expected = [plainly(llama, [*start, *before], title) for title in titles]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)
        assert lengths.tolist() == [3, 1, 4]


@pytest.mark.parametrize("likelihood", ["gain", "mean", "sum"])
def test_a_run_by_likelihood_is_ranked_as_by_hand(likelihood: Any, texts: Dataset, llama: Path, tmp_path: Path) -> None:
    config = config_of(texts.path, llama, tmp_path, likelihood=likelihood, max_his_len=3, max_title_tokens=4)
    main(config)
    folder = tmp_path / "Baselines/texts/likelihood-llama"
    metrics = json.loads((folder / "metrics.json").read_text())
    ranks = np.load(folder / "ranks-test.npy")
    users = np.flatnonzero(ranks >= 0)
    assert metrics["test"]["users"] == len(users) == metrics["protocol"]["drawn_users"] == 12
    test = leave_one_out(texts).test
    test = test.select(np.isin(test.users, users))
    model, titles = Likelihood(str(llama)), ["", *texts.item_table()["title"].to_list()]
    for row, items in enumerate(find_candidates(config, texts, test).tolist()[:4]):
        read = test.gather(np.array([row]), 3)[0].tolist()
        scores = [gain(llama, model, titles, read, item, likelihood) for item in items]
        lead = np.array(scores[1:]) - scores[0]
        assert (lead > 1e-4).sum() <= ranks[test.users[row]] <= (lead > -1e-4).sum()
    told = json.loads((folder / "asked.json").read_text())
    assert told["users"] == 12 and told["seconds_per_user"] > 0 and told["tokens_per_user"] > 20


@pytest.mark.parametrize("shortlist", ["popularity", "item-knn"])
def test_a_shortlist_is_ranked_anew(shortlist: Any, texts: Dataset, llama: Path, tmp_path: Path) -> None:
    """Among the best five of a baseline a target stands where the model puts it, and elsewhere where it stood."""
    size, given = 5, {"shortlist": shortlist, "shortlist_size": 5, "max_his_len": 3, "max_title_tokens": 4}
    config = config_of(texts.path, llama, tmp_path, protocol=EvaluationProtocol(), **given)
    main(config)
    run_baseline(BaselineConfig(data_path=texts.path, baseline=shortlist, runs_dir=tmp_path))
    baseline = tmp_path / "Baselines/texts" / shortlist
    folder = tmp_path / f"Baselines/texts/likelihood-llama-of-{shortlist}"
    assert json.loads((folder / "metrics.json").read_text())["other"].keys() > {"NDCG@10", "users"}
    module, make_inputs, _ = load_run(baseline, texts.path)[1]
    test, model, titles = (
        leave_one_out(texts).test,
        Likelihood(str(llama)),
        ["", *texts.item_table()["title"].to_list()],
    )
    moved = 0
    for file, drops_seen in ((RANKS, False), (OTHER_RANKS, True)):
        ranks, before = np.load(folder / file), np.load(baseline / file)
        assert (ranks >= 0).sum() == 12
        for row in np.flatnonzero(ranks[test.users] >= 0):
            user, target = test.users[row], int(test.targets[row])
            if before[user] >= size:
                assert ranks[user] == before[user]
                continue
            events = test.gather(np.array([row]), 999)[0].tolist()
            out = {0, *(events if drops_seen else [])} - {target}
            inputs = make_inputs(test, np.array([row]))
            items, scores = (x[0].tolist() for x in module.best(inputs, module.item_vectors(), texts.num_items))
            there = [(score, item) for item, score in zip(items, scores, strict=True) if item not in out]
            last = there[size - 1][0]  # of several items with this score any may be on the list
            own = {i: gain(llama, model, titles, events[-3:], i, "gain") for score, i in there if score >= last}
            lead = {i: own[i] - own[target] for i in own if i != target}
            sure = sum(lead[i] > 1e-4 for score, i in there if score > last and i != target)
            assert sure <= ranks[user] <= sum(value > -1e-4 for value in lead.values())
            moved += ranks[user] != before[user]
    assert moved


def test_answers_are_read() -> None:
    assert read_order("3, 1, 2", 3) == ([2, 0, 1], True)
    assert read_order("The best is 2.", 3) == ([1, 0, 2], False)
    assert read_order("1 1 4 3 0 99999999999 2", 3) == ([0, 2, 1], False)
    assert read_order("none", 2) == ([0, 1], False)


def test_a_local_model_answers(texts: Dataset, llama: Path, tmp_path: Path) -> None:
    said = LocalChat(str(llama)).answer("red green", 7)
    assert said.tokens_in >= 2 and 1 <= said.tokens_out <= 7
    main(config_of(texts.path, llama, tmp_path, way="list", test_users=3))
    told = json.loads((tmp_path / "Baselines/texts/list-llama/asked.json").read_text())
    assert told["users"] == 3 and told["tokens_out"] > 0 and 0 <= told["answers_that_name_all_once"] <= 1


class Oracle(BaseHTTPRequestHandler):
    """Names the candidates whose titles are longest first; fails as `faults` says."""

    faults: list[Any]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.faults.pop(0) if self.faults else None
        self.asked.append(body | {"key": self.headers.get("Authorization")})
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        lines = body["messages"][0]["content"].split("choose next?\n")[1].splitlines()
        shown = [line.partition(". ")[2] for line in lines if line[:1].isdigit()]
        order = sorted(range(len(shown)), key=lambda place: -len(shown[place]))
        text = ", ".join(str(place + 1) for place in order)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        answer = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer if fault is None else fault)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Oracle.faults, Oracle.asked = [], []
    monkeypatch.setattr("Baselines.server.time.sleep", lambda seconds: None)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Oracle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_a_servers_order_is_the_ranking(oracle: str, texts: Dataset, llama: Path, tmp_path: Path) -> None:
    servers = ServerOptions(server=oracle, price_in=10, price_out=100)
    config = config_of(texts.path, Path("oracle"), tmp_path, way="list", servers=servers)
    Oracle.faults = [429, 500, 503]
    main(config)
    folder = tmp_path / "Baselines/texts/list-oracle"
    told = json.loads((folder / "asked.json").read_text())
    assert len(Oracle.asked) == 15 and {asked["key"] for asked in Oracle.asked} == {"Bearer sesame"}
    assert told["answers_that_name_all_once"] == 1 and told["tokens_in"] == 1200
    assert told["cost"] == pytest.approx((1200 * 10 + 120 * 100) / 1e6)
    ranks, test = np.load(folder / "ranks-test.npy"), leave_one_out(texts).test
    test = test.select(ranks[test.users] >= 0)
    lengths = np.array([0, *map(len, texts.item_table()["title"])])
    for row, items in enumerate(find_candidates(config, texts, test)):
        longer, equal = lengths[items[1:]] > lengths[items[0]], lengths[items[1:]] == lengths[items[0]]
        assert longer.sum() <= ranks[test.users[row]] <= longer.sum() + equal.sum()


@pytest.mark.parametrize("way", ["likelihood", "list"])
def test_what_was_said_is_kept(way: Any, texts: Dataset, llama: Path, tmp_path: Path) -> None:
    """After a kill the rest is asked, and the answers are those of a run that was not stopped."""
    config = config_of(texts.path, llama, tmp_path, way=way, test_users=4)
    main(config)
    folder = tmp_path / f"Baselines/texts/{way}-llama"
    file, ranks = folder / "answers.jsonl", (folder / "ranks-test.npy").read_bytes()
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for left in (whole, b"".join(lines[:-1]) + lines[-1][:30]):
        file.write_bytes(left)
        (folder / "metrics.json").unlink()
        main(replace(config, resume=True))
        told = json.loads((folder / "asked.json").read_text())
        assert told["users_read_now"] <= (left != whole) and ("seconds_per_user" in told) == (
            told["users_read_now"] > 0
        )
        assert file.read_bytes() == whole and (folder / "ranks-test.npy").read_bytes() == ranks


def test_a_file_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"of": "a", "said": {}}\n[]\n')
    with pytest.raises(UserError, match="line 2, is no answer"):
        Kept(file)


def test_a_server_that_fails_is_named(oracle: str) -> None:
    server = Server("oracle", ServerOptions(server=oracle, retries=2))
    message = "choose next?\n1. a\n"
    for faults, said in (
        ([401], "refused the request: 401"),
        ([500] * 3, "did not answer, 3 times; the last: 500"),
        ([b"no json"], "answered no JSON"),
        ([b'{"choices": []}'], "expected choices with a message"),
    ):
        Oracle.faults = list(faults)
        with pytest.raises(UserError, match=said):
            server.answer(message, 5)
    gone = Server("oracle", ServerOptions(server="http://127.0.0.1:9/v1", retries=1))
    with pytest.raises(UserError, match="did not answer, 2 times; the last: ConnectError"):
        gone.answer(message, 5)


def test_requests_are_sent_no_more_often_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], list[float]()
    monkeypatch.setattr("Baselines.server.time.monotonic", lambda: now[0])
    monkeypatch.setattr("Baselines.server.time.sleep", slept.append)
    server = Server("any", ServerOptions(server="http://x", requests_per_minute=30))
    for moment in (100.0, 100.0, 101.0, 120.0):
        now[0] = moment
        server._wait()
    assert slept == [0, 2, 3, 0]


def test_contradictions(tmp_path: Path) -> None:
    for options, message in (
        ({"protocol": EvaluationProtocol()}, "give --sample_size K"),
        ({"shortlist": "rules"}, "--shortlist ranks all items: give --sample_size -1"),
        ({"shortlist": "rules", "protocol": EvaluationProtocol(), "shortlist_size": 0}, "shortlist_size"),
        ({"servers": ServerOptions(server="http://x")}, "give --way list"),
        ({"max_his_len": 0}, "max_his_len"),
    ):
        with pytest.raises(UserError, match=message):
            Config(**options)
    with pytest.raises(UserError, match="must begin with http"):
        ServerOptions(server="ftp://x")
