"""Items that are added while serving: where they stand, and that none is lost."""

import json
import shutil
import signal
import threading
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from seqrec.basics.errors import UserError
from seqrec.serving.additions import journal_of
from seqrec.serving.answers import Query
from seqrec.serving.app import make_app
from seqrec.serving.catalogue import mean_vector
from seqrec.serving.exported import Exported
from seqrec.serving.options import ServiceOptions
from seqrec.serving.process import running_service
from seqrec.serving.run_model import Run
from seqrec.serving.service import Service
from seqrec.training.module import ScoringModule


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "shop"))


@pytest.mark.parametrize("search", ["all", "index"])
def test_an_item_that_was_added_is_recommended_and_stays(search: Any, copied: Path, served_run: Path) -> None:
    options, title = ServiceOptions(search=search), "red green blue small 1"
    ask = {"history": ["item-3"], "k": 41, "include_seen": True, "explain": True}
    with TestClient(make_app(Service([copied, served_run], options))) as client:
        added = client.post("/items", json={"id": 77, "text": {"title": title}})
        assert added.status_code == 201 and added.json()["item"] == {"id": "77", "title": title}
        near = added.json()["near"]
        assert len(near) == 3 and near[0]["cosine"] >= near[1]["cosine"] > 0
        found = {item["id"]: item for item in client.post("/recommend", json=ask).json()["items"]}
        assert len(found) == 41 and list(found) == sorted(found, key=lambda raw_id: -found[raw_id]["score"])
        # The new item's vector, and with the scores of 40 others the user's.
        exact = Exported(copied, search="all")
        vectors = exact.vectors.trained[exact.catalogue.find([item["id"] for item in near])[0]]
        weights = np.array([item["cosine"] for item in near])
        mean = weights @ vectors
        expected = mean / np.linalg.norm(mean) * (weights @ np.linalg.norm(vectors, axis=1) / weights.sum())
        [others] = exact.rank([Query(np.array([3]), 40, np.zeros(0, dtype=np.int64))])
        user = np.linalg.lstsq(exact.vectors.trained[others.items], others.scores, rcond=None)[0]
        assert found["77"]["score"] == pytest.approx(float(user @ expected), abs=2e-3)
        for row, score in zip(others.items.tolist(), others.scores.tolist(), strict=True):
            assert found[f"item-{row}"]["score"] == pytest.approx(score, abs=1e-5)
        read = client.post("/recommend", json={"history": ["item-3", 77], "k": 5, "explain": True}).json()
        assert read["unknown"] == [] and "77" not in [item["id"] for item in read["items"]]
        assert client.get("/items", params={"words": "green blue 77"}).json()["items"][0]["id"] == "77"
        assert near[0]["id"] in [item["id"] for item in client.get("/items/77/similar").json()["items"]]
    with TestClient(make_app(Service([copied], options))) as client:
        assert {item["id"]: item for item in client.post("/recommend", json=ask).json()["items"]} == found


def test_a_run_takes_items_too(served_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(served_run, tmp_path / "SASRec" / "texts" / "mine"))
    ask = {"history": ["item-3"], "k": 41, "include_seen": True}
    before = Run(run)
    with TestClient(make_app(Service([run], ServiceOptions()))) as client:
        added = client.post("/items", json={"id": "new", "text": {"title": "red green blue small 1"}})
        assert added.status_code == 201
        near, cosines = zip(*[(item["id"], item["cosine"]) for item in added.json()["near"]], strict=True)
        found = {item["id"]: item["score"] for item in client.post("/recommend", json=ask).json()["items"]}
        assert len(found) == 41
        vector = mean_vector(before.vectors.numpy(), before.catalogue.find(near)[0], np.array(cosines, np.float32))
        [others] = before.rank([Query(np.array([3]), 40, np.zeros(0, dtype=np.int64))])
        user = np.linalg.lstsq(before.vectors.numpy()[others.items], others.scores, rcond=None)[0]
        assert found["new"] == pytest.approx(float(user @ vector), abs=2e-3)
        # In a history it is read as the item of the nearest words.
        answers = [
            client.post("/recommend", json=ask | {"history": ["item-3", item]}).json()["items"]
            for item in ("new", near[0])
        ]
        assert answers[0] == answers[1]
        told = client.post("/recommend", json={"history": ["item-3", "new"], "k": 40, "allow": ["new", near[1]]}).json()
        assert [item["id"] for item in told["items"]] == [near[1]]
    again = Service([run], ServiceOptions()).desk(None).model
    assert again.catalogue.raw_ids[40:] == ["new"]


def test_a_run_that_scores_without_vectors_takes_none(served_run: Path) -> None:
    run = Run(served_run)
    run.recommender = run.recommender._replace(module=ScoringModule(40))
    with pytest.raises(UserError, match="SASRec-none-seed42 scores items by more than their vectors"):
        run.place({"title": "red 1"})


def test_what_cannot_be_added_is_refused(copied: Path, served_run: Path) -> None:
    with TestClient(make_app(Service([copied, served_run], ServiceOptions()))) as client:
        new = {"id": "new", "text": {"title": "red 1"}}
        for body, status in (
            (new | {"id": "item-1"}, 409),
            (new | {"text": {"title": "unheard-of"}}, 422),
            (new | {"text": {"colour": "red"}}, 422),
            (new | {"text": {}}, 422),
            (new | {"id": ""}, 422),
            (new | {"model": "nix"}, 404),
        ):
            refused = client.post("/items", json=body)
            assert refused.status_code == status, refused.text
        half = b'{"id": "\\ud800", "text": {"title": "red 1"}}'
        assert client.post("/items", content=half).status_code == 422
        assert not journal_of(copied).exists() or not journal_of(copied).read_bytes()


def test_a_journal_that_was_cut_or_spoilt(copied: Path) -> None:
    path = journal_of(copied)
    lines = [{"id": "a", "text": {"title": "red 1"}}, {"id": "b", "text": {"title": "wholly unknown"}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "c", "te')
    service = Service([copied], ServiceOptions())
    # No word of b is known, and c was never acknowledged.
    assert service.desk(None).model.catalogue.raw_ids[40:] == ["a"]
    service.journals["our-model"].append("d", {"title": "red 2"})
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "d"]
    path.write_bytes(b"[]\n")
    with pytest.raises(UserError, match="line 1, is no item that was added"):
        Service([copied], ServiceOptions())


def test_a_kill_loses_no_item_that_was_acknowledged(copied: Path) -> None:
    acknowledged: list[str] = []
    for attempt in range(2):
        with running_service(copied) as (process, address), suppress(OSError, HTTPException):
            for number in range(10_000):
                body = {"id": f"new-{attempt}-{number}", "text": {"title": f"red {number % 40}"}}
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"{address}/items", json.dumps(body).encode(), headers)
                with urllib.request.urlopen(request, timeout=20) as answer:
                    assert answer.status == 201
                acknowledged.append(str(body["id"]))
                if number == 0:
                    threading.Timer(0.2 + 0.2 * attempt, process.kill).start()
        assert process.wait(20) == -signal.SIGKILL
    assert len(acknowledged) > 4 and acknowledged[-1].startswith("new-1")
    kept = Service([copied], ServiceOptions()).desk(None).model.catalogue.raw_ids[40:]
    assert [raw_id for raw_id in kept if raw_id in set(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 2
