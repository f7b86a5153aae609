"""Statistics of item vectors against their definitions, and the page."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from scripts.embedding_report import Config, list_neighbours, main
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.data.vector_statistics import describe_vectors, draw_transitions, nearest, unit_rows
from seqrec.data.vectors import Producer, embedding_path, name_of, save_embeddings
from tests.conftest import write_dataset


def random_vectors(
    num_items: int = 40, width: int = 6, seed: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    vectors = np.random.default_rng(seed).normal(0.5, 1.0, size=(num_items + 1, width)).astype(np.float32)
    vectors[0] = 0
    return vectors


def test_numbers_by_their_definitions() -> None:
    vectors = random_vectors()
    pairs = np.array([[1, 2], [3, 4], [40, 1], [7, 9]])
    found = describe_vectors(vectors, pairs)
    unit = [v / np.linalg.norm(v) for v in vectors[1:].astype(np.float64)]
    cosines = np.array([a @ b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j])
    assert found.mean_cosine == pytest.approx(cosines.mean(), abs=0.02)
    assert found.uniformity == pytest.approx(np.log(np.exp(-2 * (2 - 2 * cosines)).mean()), abs=0.05)
    distances = [np.square(unit[a - 1] - unit[b - 1]).sum() for a, b in pairs]
    assert found.alignment == pytest.approx(np.mean(distances), rel=1e-5)
    shares = np.linalg.eigvalsh(np.cov(vectors[1:].T))[::-1]
    np.testing.assert_allclose(found.spectrum, shares / shares.sum(), rtol=1e-4)
    assert found.effective_rank == pytest.approx(np.exp(-(shares / shares.sum() * np.log(shares / shares.sum())).sum()))
    assert sum(found.spectrum[: found.directions]) >= 0.9 > sum(found.spectrum[: found.directions - 1])
    hits = 0
    for a, b in pairs:
        scores = {i: unit[a - 1] @ unit[i - 1] for i in range(1, 41) if i != a}
        hits += sorted(scores, key=scores.__getitem__, reverse=True).index(b) < 10
    assert found.next_item == hits / 4


def test_vectors_of_one_direction() -> None:
    vectors = np.outer(np.arange(5), np.ones(3)).astype(np.float32)
    found = describe_vectors(vectors, np.array([[1, 2]]))
    assert found.directions == 1
    assert [found.mean_cosine, found.effective_rank] == pytest.approx([1, 1], abs=1e-6)
    assert found.alignment == pytest.approx(0, abs=1e-6)


def test_names_may_have_dots() -> None:
    assert [name_of(given) for given in ("e5-v1.5", "dir/e5-v1.5.npy", "none")] == ["e5-v1.5", "e5-v1.5", "none"]


def test_nearest_leaves_out_the_item_and_the_padding() -> None:
    vectors = np.array([[0, 0], [1, 0], [1, 0.1], [0, 1], [-1, 0]], dtype=np.float32)
    assert nearest(unit_rows(vectors), np.array([1, 3]), 2).tolist() == [[2, 3], [2, 1]]


def test_transitions_are_of_training_histories_alone(tiny: Dataset) -> None:
    train = leave_one_out(tiny).train
    every = {
        (int(a), int(b))
        for start, end in zip(train.starts, train.ends, strict=True)
        for a, b in zip(train.items[start : end - 1], train.items[start + 1 : end], strict=True)
        if a != b
    }
    assert set(map(tuple, draw_transitions(train, 10**6, 0).tolist())) == every
    assert len(draw_transitions(train, 7, 0)) == 7


def test_neighbours_of_items_without_text_have_their_ids(tmp_path: Path) -> None:
    vectors: dict[str, Any] = {"one": random_vectors(num_items=2, width=3)}
    folder = write_dataset(tmp_path / "bare", [[1, 2, 1, 2]] * 3, 2)
    pl.read_parquet(folder / "items.parquet").drop("title").write_parquet(folder / "items.parquet")
    manifest = json.loads((folder / "manifest.json").read_text()) | {"attributes": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    dataset = load_dataset(folder)
    (first, *_) = list_neighbours(Config(items=2, neighbours=1), dataset, vectors)
    assert {first["item"], first["neighbours"][0][1][0]} == {"item-1", "item-2"}


def test_all_vectors_that_lie_there_are_taken_unless_some_are_named(
    tiny: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Config(data_path=tiny.path, embedding_dir=tmp_path, output_dir=tmp_path / "out", transforms=("none",))
    with pytest.raises(FileNotFoundError, match=rf"{tiny.name} holds no item vectors .*Recformer/encode.py --dataset"):
        main(given)
    for name in ("pretrain", "mine"):
        save_embeddings(embedding_path(tiny, name, tmp_path), random_vectors(), tiny, Producer("test", None, {}))
    for named, expected in (((), ["mine", "pretrain"]), (("pretrain",), ["pretrain"])):
        main(replace(given, init_types=named))
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]] == expected


def test_the_page(tiny: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("one", "<two>")):
        path = embedding_path(tiny, name, tmp_path)
        save_embeddings(path, random_vectors(seed=seed), tiny, Producer("test", None, {}))
    main(
        Config(
            data_path=tiny.path,
            init_types=("one", "<two>"),
            embedding_dir=tmp_path,
            output_dir=tmp_path / "out",
            items=3,
        )
    )
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + 2 * 4 + 1
    page = (tmp_path / "out/embeddings.html").read_text()
    assert page.count("Title of item-") == 3 + 2 * 3 * 5
    assert "&lt;two&gt;" in page
    assert "--paper:" in page and 'class="scroll"' in page  # the style of every page
    assert "<two>" not in page
    assert "http" not in page.replace("https://www.w3.org", "")
    rows = json.loads((tmp_path / "out/embeddings.json").read_text())["rows"]
    raw, white = (
        row["statistics"] for row in rows if row["vectors"] == "one" and row["transform"] in ("none", "whiten")
    )
    assert white["effective_rank"] > raw["effective_rank"]
    assert white["mean_cosine"] < raw["mean_cosine"]
