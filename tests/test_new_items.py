"""A catalogue that has grown since training: an adapter reads new items' texts, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from seqrec.nn.geometry import transform_vectors
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests import forked
from tests.grown import ORDER, write_grown

ROOT = forked.ROOT
FLAGS = ("--num_epochs", "2", "--hidden_units", "16", "--lr", "0.03", "--accelerator", "cpu", "--no-progress_bar")
FAMILIES = [name for name in ("SASRec", "Bert4Rec") if (ROOT / name).is_dir()]


@pytest.fixture(scope="module")
def grown_path(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset, grown."""
    return write_grown(tiny, tmp_path_factory.mktemp("data") / "grown")


@pytest.fixture(scope="module")
def vectors() -> Any:
    """(46, 24) of items 1 to 45."""
    given = np.random.default_rng(3).normal(1, 2, size=(46, 24)).astype(np.float32)
    given[0] = 0
    return given


@pytest.fixture(scope="module")
def embeddings(tiny: Dataset, grown_path: Path, vectors: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of both catalogues."""
    folder = tmp_path_factory.mktemp("embedding")
    save_embeddings(embedding_path(tiny, "text", folder), vectors[:41], tiny, Producer("x", None, {}))
    grown = load_dataset(grown_path)
    arranged = np.concatenate([vectors[:1], vectors[ORDER]])
    save_embeddings(embedding_path(grown, "text", folder), arranged, grown, Producer("x", None, {}))
    return folder


def train(family: str, data: Path, embeddings: Path, runs: Path, *flags: str) -> Path:
    runs.mkdir(exist_ok=True)
    where = ("--data_path", data, "--embedding_dir", embeddings, "--runs_dir", runs, "--run_name", "run")
    forked.run_script(f"{family}/finetune.py", *where, *FLAGS, *flags, output=runs / "said")
    return runs / family / "tiny" / "run"


ADAPTER = ("--init_type", "text", "--init_mode", "adapter")


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_vectors_serve_new_items(
    family: str, tiny_path: Path, grown_path: Path, embeddings: Path, tmp_path: Path
) -> None:
    run = train(family, tiny_path, embeddings, tmp_path, "--init_type", "text", "--init_mode", "frozen")
    before, after = load_run(run)[1].module, load_run(run, catalogue=grown_path)[1].module
    with torch.no_grad():
        known, everything = before.item_vectors(), after.item_vectors()
    was_known = ORDER <= 40
    torch.testing.assert_close(everything[1:][was_known], known[ORDER[was_known]], rtol=1e-6, atol=1e-6)
    assert everything[1:][~was_known].any(dim=1).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transforms", [("standardise",), ("match", "pca")])
def test_known_items_keep_their_vectors_and_new_ones_are_read_alike(
    family: str, transforms: Any, tiny_path: Path, grown_path: Path, embeddings: Path, vectors: Any, tmp_path: Path
) -> None:
    run = train(family, tiny_path, embeddings, tmp_path, *ADAPTER, "--init_transform", *transforms)
    (_, before), (grown, after) = load_run(run), load_run(run, catalogue=grown_path)
    with torch.no_grad():
        known, everything = before.module.item_vectors(), after.module.item_vectors()
        was_known = ORDER <= 40
        torch.testing.assert_close(everything[1:][was_known], known[ORDER[was_known]], rtol=1e-6, atol=1e-6)
        fitted = np.concatenate([[False], np.isin(np.arange(1, 46), np.unique(trained_items(tiny_path)))])
        model: Any = before.module.model
        table = model.item_embedding
        given = transform_vectors(vectors, transforms, fitted, 16, table.std)
        new = table.adapter(torch.from_numpy(given[ORDER[~was_known]]))
        torch.testing.assert_close(everything[1:][~was_known], new, rtol=1e-4, atol=1e-4)
    lists = [items for _, items, _ in recommend(after, grown.whole_histories(), 45, False, 500, "cpu")]
    recommended = np.unique(np.concatenate(lists))
    assert set(np.flatnonzero(ORDER > 40) + 1) <= set(recommended.tolist())


def trained_items(path: Path) -> Any:
    from seqrec.data.splits import leave_one_out

    train_view = leave_one_out(load_dataset(path)).train
    return train_view.gather(np.arange(len(train_view)), 100)[0]


def test_what_cannot_serve_new_items_says_so(
    tiny_path: Path, grown_path: Path, embeddings: Path, vectors: Any, tmp_path: Path
) -> None:
    if len(FAMILIES) < 2:
        pytest.skip("needs SASRec/ and Bert4Rec/")
    for name, flags in (("ids", ()), ("init", ("--init_type", "text"))):
        run = train("SASRec", tiny_path, embeddings, tmp_path / name, *flags)
        with pytest.raises(ValueError, match=r"cannot score new items.*train with --init_mode adapter"):
            load_run(run, catalogue=grown_path)
    run = train("SASRec", tiny_path, embeddings, tmp_path / "unfrozen", *ADAPTER, "--unfreeze_at", "2")
    with pytest.raises(ValueError, match=r"has per-item parameters.*without --unfreeze_at"):
        load_run(run, catalogue=grown_path)
    run = train("Bert4Rec", tiny_path, embeddings, tmp_path / "untied", *ADAPTER, "--untied_output")
    with pytest.raises(
        ValueError, match=r"model.output_bias, model.output_embedding.weight hold a parameter for each item"
    ):
        load_run(run, catalogue=grown_path)
    run = train("SASRec", tiny_path, embeddings, tmp_path / "adapter", *ADAPTER)
    grown = load_dataset(grown_path)
    file = embedding_path(grown, "text", embeddings)
    kept = np.load(file)
    try:
        save_embeddings(file, kept[:, ::-1], grown, Producer("x", None, {}))
        with pytest.raises(ValueError, match="differ where the items are the same: encode both with the same weights"):
            load_run(run, catalogue=grown_path)
    finally:
        save_embeddings(file, kept, grown, Producer("x", None, {}))
