"""The HTTP service: its answers, what it refuses, its load, and exports that are exchanged while it answers."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from seqrec.basics.errors import UserError
from seqrec.serving import service as service_module
from seqrec.serving.answers import Answer, Answering, Placed, Query
from seqrec.serving.app import make_app
from seqrec.serving.batching import Desk, OverloadedError
from seqrec.serving.export import export_run
from seqrec.serving.folder import replace_export
from seqrec.serving.options import ExportOptions, ServiceOptions
from seqrec.serving.process import running_service
from seqrec.serving.service import Service, open_model
from tests.forked import ROOT


@pytest.fixture(scope="module")
def client(exported: Path, served_run: Path) -> Iterator[TestClient]:
    with TestClient(make_app(Service([exported, served_run], ServiceOptions()))) as client:
        yield client


def test_recommendations_are_those_of_the_model(client: TestClient, exported: Path) -> None:
    model = open_model(exported, ServiceOptions())
    history = np.array([3, 4])
    asked = {"history": ["item-3", "absent", "item-4"], "k": 4, "explain": True}
    found = client.post("/recommend", json=asked).json()
    [expected] = model.answer([Query(history, 4, history)])
    assert [item["id"] for item in found["items"]] == [f"item-{row}" for row in expected.items]
    np.testing.assert_allclose([item["score"] for item in found["items"]], expected.scores, rtol=1e-5)
    assert (found["model"], found["by"], found["unknown"]) == ("our-model", "model", ["absent"])
    for item, row in zip(found["items"], expected.items.tolist(), strict=True):
        for name, near in (("text", model.catalogue.likeness), ("histories", model.catalogue.togetherness)):
            cosines = near(row, history)
            said = item[f"near_in_{name}"]
            if cosines.max() > 0:
                assert said["id"] == f"item-{history[cosines.argmax()]}"
                assert said["cosine"] == pytest.approx(float(cosines.max()), abs=1e-4)
            else:
                assert said is None
    block, allow = [found["items"][0]["id"]], [item["id"] for item in found["items"][:2]]
    also = client.post("/recommend", json=asked | {"block": block, "allow": allow}).json()["items"]
    assert [item["id"] for item in also] == allow[1:]
    seen = client.post("/recommend", json={"history": ["item-3"], "k": 40, "include_seen": True}).json()["items"]
    assert "item-3" in [item["id"] for item in seen] and len(seen) == 40


def test_the_second_model_is_asked_by_its_name(client: TestClient) -> None:
    names = [model["name"] for model in client.get("/models").json()["models"]]
    assert names == ["our-model", "SASRec-none-seed42"]
    answers = [client.post("/recommend", json={"history": ["item-3"], "model": name}).json() for name in names]
    assert [answer["model"] for answer in answers] == names
    ids = [[item["id"] for item in answer["items"]] for answer in answers]
    assert ids[0] == ids[1]  # an export and its run
    assert client.post("/recommend", json={"history": [], "model": "nix"}).status_code == 404
    empty = client.post("/recommend", json={"history": ["nix"], "k": 2}).json()
    assert empty["by"] == "popularity" and len(empty["items"]) == 2


def test_items_are_found_and_have_neighbours(client: TestClient) -> None:
    found = client.get("/items", params={"words": "red green", "limit": 3}).json()["items"]
    assert len(found) == 3 and all("red green" in item["title"] for item in found)
    near = client.get("/items/item-9/similar", params={"k": 4}).json()
    assert near["item"]["id"] == "item-9" and len(near["items"]) == 4
    assert client.get("/items/..%2F..%2Fetc%2Fpasswd/similar").status_code == 404
    assert client.get("/items/nix/similar").json() == {"detail": "no item 'nix'"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b'{"history": ["\xff"]}', 422),
        (b"[" * 100_000, 422),
        (b'{"history": "item-1"}', 422),
        (b'{"history": [null]}', 422),
        (b'{"history": [1e999]}', 422),
        (b'{"history": [{"a": 1}]}', 422),
        (b'{"history": [], "k": 0}', 422),
        (b'{"history": [], "k": 1001}', 422),
        (b'{"history": [], "kk": 1}', 422),
        (b'{"history": ["\\ud800"]}', 422),
        (b'{"history": ["../../etc/passwd", 12345678901234567890123]}', 200),
        (json.dumps({"history": ["item-1"] * 10_001}).encode(), 422),
        (json.dumps({"history": ["item-1", "item-2"] * 5_000}).encode(), 200),
        (b'{"history": ["' + b"x" * 1_000_001 + b'"]}', 413),
    ],
)
def test_what_is_malformed_is_refused(body: bytes, status: int, client: TestClient) -> None:
    answer = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text[:200]
    assert answer.json()  # JSON, whatever came


def test_a_body_without_a_length_is_cut(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 50_000

    assert client.post("/recommend", content=body()).status_code == 413


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json()["status"] == "ready"
    client.post("/recommend", json={"history": ["secret-id"]})
    said = client.get("/metrics").text
    assert re.search(r'seqrec_requests_total\{path="/recommend",status="200"\} [1-9]', said)
    assert "seqrec_batch_count" in said and "seqrec_waiting 0.0" in said and "secret" not in said
    assert "What next?" in client.get("/").text


def test_a_key_is_asked_for(exported: Path) -> None:
    with TestClient(make_app(Service([exported], ServiceOptions(api_key="wé")))) as client:
        for path in ("/models", "/items", "/metrics", "/items/item-1/similar"):
            assert client.get(path).status_code == 401
        assert client.post("/recommend", json={"history": []}, headers={"X-API-Key": "no"}).status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert client.get("/models", headers={"X-API-Key": "wé".encode()}).status_code == 200
    with TestClient(make_app(Service([exported], ServiceOptions(api_key="key")))) as client:
        assert client.get("/models", headers={"X-API-Key": "key"}).status_code == 200


def test_the_described_requests_are_never_a_fault(client: TestClient) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    paths = schema.raw_schema["paths"]
    assert set(paths) == {"/recommend", "/items", "/items/{item}/similar", "/models", "/health", "/ready", "/metrics"}
    for path in ("/recommend", "/items", "/items/{item}/similar"):
        for operation in (schema[path][method] for method in schema[path]):

            @settings(max_examples=40, suppress_health_check=list(HealthCheck))
            @given(case=st.one_of(operation.as_strategy(), operation.as_strategy()))
            def check(case: Any) -> None:
                response = case.call()
                assert response.status_code < 500
                case.validate_response(response, checks=[schemathesis.checks.not_a_server_error])

            check()


class Slow(Answering):
    """Answers with the length of the history, after a while."""

    def __init__(self, name: str = "slow") -> None:
        self.name, self.digest, self.batches = name, name, list[int]()
        self.going = threading.Event()

    def rank(self, queries: Sequence[Query]) -> list[Answer]:
        self.going.wait(10)
        self.batches.append(len(queries))
        if any(query.k == 13 for query in queries):
            raise ValueError("unlucky")
        return [Answer(np.array([len(query.history)]), np.ones(1, np.float32)) for query in queries]

    def similar(self, item: int, k: int) -> Answer:
        raise AssertionError

    def add(self, raw_id: str, texts: Mapping[str, str], placed: Placed) -> None:
        raise AssertionError


def query_of(length: int, k: int = 1) -> Query:
    return Query(np.ones(length, dtype=np.int64), k, np.zeros(0, dtype=np.int64))


def test_requests_that_wait_are_answered_together() -> None:
    async def ask() -> None:
        model, other = Slow(), Slow("other")
        desk = Desk(model, most=8, waiting=20, watch=lambda size: None)
        asked = [asyncio.create_task(desk.ask(model, query_of(1)))]
        await asyncio.sleep(0.05)  # the first is being answered
        asked += [asyncio.create_task(desk.ask(model, query_of(length))) for length in range(2, 12)]
        asked += [asyncio.create_task(desk.ask(other, query_of(length))) for length in range(12, 22)]
        await asyncio.sleep(0.05)
        assert len(desk) == 20
        with pytest.raises(OverloadedError):
            await desk.ask(model, query_of(5))
        asked[3].cancel()
        model.going.set()
        other.going.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers.pop(3), asyncio.CancelledError)
        assert [int(answer.items[0]) for answer in answers if isinstance(answer, Answer)] == [1, 2, 3, *range(5, 22)]
        assert model.batches == [1, 8, 1] and other.batches == [8, 2]
        with pytest.raises(ValueError, match="unlucky"):
            await desk.ask(model, query_of(1, 13))
        assert (await desk.ask(model, query_of(6))).items.tolist() == [6]

    asyncio.run(ask())


def test_more_than_can_wait_is_shed(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service([exported], ServiceOptions(max_waiting=2, max_batch=1))
    desk = service.desk(None)
    going, answer = threading.Event(), desk.model.answer

    def wait(queries: Sequence[Query]) -> list[Answer]:
        going.wait(10)
        return answer(queries)

    monkeypatch.setattr(desk.model, "answer", wait)
    statuses: list[int] = []
    with TestClient(make_app(service)) as client:
        ask = lambda: statuses.append(client.post("/recommend", json={"history": ["item-1"]}).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(9)]
        for thread in threads:
            thread.start()
        while len(statuses) < 6:
            time.sleep(0.01)
        assert set(statuses) == {503} and client.get("/ready").status_code == 503
        refused = client.post("/recommend", json={"history": ["item-1"]})
        assert refused.headers["retry-after"] == "1"
        assert client.post("/recommend", content=b"{").status_code == 503  # what is refused is not read
        going.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] * 3 + [503] * 6 and client.get("/ready").status_code == 200


def test_a_newer_export_is_taken_while_answers_go_on(
    exported: Path, served_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_EVERY", 0.02)
    place, other, newer = tmp_path / "export", tmp_path / "other", tmp_path / "newer"
    shutil.copytree(exported, place)
    export_run(served_run, other, "another", (None, None), False, ExportOptions(forms=("fp32",)))
    export_run(served_run, newer, "our-model", (None, None), False, ExportOptions(forms=("int8",)))
    service = Service([place], ServiceOptions())
    first = service.desk(None).model
    with TestClient(make_app(service)) as client:
        statuses = []
        for what in (exported, other, newer):
            with replace_export(place, True) as folder:
                shutil.copytree(what, folder, dirs_exist_ok=True)
            end = time.monotonic() + (60 if what is newer else 0.5)
            while time.monotonic() < end and service.desk(None).model is first:
                statuses.append(client.post("/recommend", json={"history": ["item-3"]}).status_code)
                time.sleep(0.01)
            assert what is newer or service.desk(None).model is first
        assert set(statuses) == {200} and service.desk(None).model is not first
        assert "seqrec_loaded_total 1.0" in client.get("/metrics").text


def test_two_models_of_one_name_are_refused(exported: Path) -> None:
    with pytest.raises(UserError, match="have the name our-model"):
        Service([exported, exported], ServiceOptions())


def test_an_export_is_served_without_pytorch(exported: Path) -> None:
    absent = ("torch", "pytorch_lightning", "lightning_utilities", "transformers", "pandas", "matplotlib", "onnx")
    code = f"""import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}: raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from fastapi.testclient import TestClient
from seqrec.basics.imports import leave_out_text_metrics
from seqrec.serving.app import make_app
from seqrec.serving.options import ServiceOptions
from seqrec.serving.service import Service
import scripts.serve
leave_out_text_metrics()
client = TestClient(make_app(Service([Path({str(exported)!r})], ServiceOptions())))
print(client.post("/recommend", json={{"history": ["item-3"], "explain": True}}).status_code)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "200\n", done.stderr


def test_the_command_serves_until_it_is_stopped(exported: Path) -> None:
    with running_service(exported) as (process, address):
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            assert json.load(answer) == {"status": "alive"}
        command = [sys.executable, ROOT / "scripts/serve.py", exported, "--port", address.rpartition(":")[2]]
        taken = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
        assert taken.returncode == 1 and "can't be listened on" in taken.stderr
    code = process.wait(20)
    assert code in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
