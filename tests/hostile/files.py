"""Opening what a dataset, item vectors and a run consist of, damaged or made by somebody else."""

import functools
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from seqrec.comparison.results import read_run
from seqrec.data.dataset import load_dataset
from seqrec.data.vectors import Producer, load_embeddings, save_embeddings
from seqrec.training.checkpoints import load_state
from tests.conftest import write_dataset
from tests.hostile.trial import Check
from tests.hostile.values import altered, anything, damaged, word

ITEMS, USERS = 5, 4


@functools.cache
def originals() -> Path:
    """A dataset, item vectors and a run, whole."""
    root = Path("originals").absolute()
    shutil.rmtree(root, ignore_errors=True)
    histories = [[1, 2, 3, 4], [2, 3, 1], [4, 5, 1], [5, 1, 2]]
    dataset = load_dataset(
        write_dataset(root / "data", histories, ITEMS, [[1, 2, 3, 4], [1, 1, 1], [7, 8, 9], [0, 5, 6]])
    )
    vectors = np.arange((ITEMS + 1) * 3, dtype=np.float32).reshape(ITEMS + 1, 3) * (np.arange(ITEMS + 1) > 0)[:, None]
    save_embeddings(root / "vectors" / "data" / "mine.npy", vectors, dataset, Producer("a test", None, {"x": 1}))
    write_run(root / "runs" / "SASRec" / "data" / "none-seed1")
    return root


def write_run(folder: Path) -> None:
    ranks = np.array([0, 3, -1, 1])
    tested = ranks[ranks >= 0]
    gains = 1 / np.log2(tested + 2)
    test = {"NDCG@10": gains.mean(), "Recall@10": 1.0, "MRR": (1 / (tested + 1)).mean(), "users": 3}
    protocol = {"split": "leave_one_out", "filter_seen": True, "sample_size": 0, "num_items": ITEMS}
    protocol |= {"sequences_sha256": "0" * 64, "item_ids_sha256": "1" * 64}
    metrics = {"family": "SASRec", "dataset": "data", "init_type": "none", "group": "none", "seed": 1, "best_epoch": 3}
    metrics |= {"protocol": protocol, "test": test, "epochs": 5, "cost": {"train_seconds": 1.5, "parameters": 10}}
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(json.dumps({"lr": 0.1, "seed": 1, "maxlen": 50, "dataset": "data"}))
    np.save(folder / "ranks-test.npy", ranks)
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {"a": torch.arange(6.0)}, "epoch": 3}, folder / "checkpoints" / "best.ckpt")


def changed(*paths: str) -> SearchStrategy[tuple[str, bytes]]:
    """Return one of the original files and other bytes for it, which are made when they are asked for."""
    return st.deferred(
        lambda: st.sampled_from([(path, (originals() / path).read_bytes()) for path in paths]).flatmap(changed_file)
    )


@st.composite
def changed_file(draw: DrawFn, original: tuple[str, bytes]) -> tuple[str, bytes]:
    """Return a file's path and other bytes: another value in its JSON, or a damage."""
    path, content = original
    if path.endswith(".json") and draw(st.integers(0, 3)):
        return path, json.dumps(draw(altered(json.loads(content), 3))).encode()
    return path, draw(damaged(content))


def saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


tensors = st.sampled_from(
    [
        *(torch.ones(2), torch.ones(()), torch.ones(0), torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex64)),
        *(torch.full((ITEMS + 1, 0), 1.0), torch.zeros(ITEMS + 1, 3), torch.zeros(ITEMS, 3), torch.ones(ITEMS + 1, 3)),
        *(
            torch.full((ITEMS + 1, 3), torch.nan),
            torch.zeros(ITEMS + 1, 3, dtype=torch.int64),
            torch.ones(2, device="meta"),
        ),
        *(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), torch.nn.Parameter(torch.zeros(ITEMS + 1, 3))),
    ]
)
torch_content = st.one_of(
    *(tensors, anything, st.dictionaries(st.one_of(word, st.integers(0, 3)), st.one_of(tensors, anything), max_size=3)),
    *(st.lists(tensors, max_size=2), st.dictionaries(st.just("state_dict"), st.one_of(tensors, anything), max_size=1)),
)
arrays = st.sampled_from(
    [
        np.zeros((ITEMS + 1, 3), dtype)
        for dtype in ("f4", "f8", ">f4", "f2", "i8", "?", "c8", "U3", "S2", "M8[s]", "V4", "O")
    ]
    + [np.zeros(shape) for shape in ((), (0,), (ITEMS + 1, 0), (ITEMS, 3), (1, ITEMS + 1, 3))]
    + [np.full((ITEMS + 1, 3), value) for value in (np.nan, np.inf, 1e300, 1.0)]
    + [np.array(ranks) for ranks in ([0, 3, -1, 9], [0, 3, -2, 1], [-1] * 4, [], [0, 3, -1, 1])]
)


def placed(change: tuple[str, bytes], place: Path, folder: str) -> Path:
    """Copy a folder of the originals, with one file changed, and return the copy."""
    path, content = change
    shutil.copytree(originals() / folder, place / folder)
    (place / path).write_bytes(content)
    return place / folder


def open_dataset(change: tuple[str, bytes], place: Path) -> None:
    dataset, whole = load_dataset(placed(change, place, "data")), load_dataset(originals() / "data")
    table, people = dataset.item_table(), dataset.user_table()
    for name in ("offsets", "items", "timestamps"):
        found = getattr(dataset, name)
        assert found is None or np.array_equal(found, getattr(whole, name)), f"{name} became others"
    assert table["raw_id"].to_list() == whole.item_table()["raw_id"].to_list()
    assert len(people) == USERS


def open_vectors(change: tuple[str, bytes], place: Path) -> None:
    folder, dataset = placed(change, place, "vectors"), load_dataset(originals() / "data")
    vectors = load_embeddings("mine", dataset, folder)
    assert np.array_equal(vectors, load_embeddings("mine", dataset, originals() / "vectors"))


def open_other_vectors(content: tuple[str, bytes], place: Path) -> None:
    (place / content[0]).write_bytes(content[1])
    vectors = load_embeddings(str(place / content[0]), load_dataset(originals() / "data"), place)
    assert vectors.shape[0] == ITEMS + 1 and vectors.shape[1] > 0
    assert np.isfinite(vectors).all() and not vectors[0].any()


def open_run(change: tuple[str, bytes], place: Path) -> None:
    run = read_run(placed(change, place, "runs") / "SASRec" / "data" / "none-seed1")
    ranks = np.array(run.ranks)[run.ranks >= 0]
    assert abs(run.test["MRR"] - np.mean(1 / (ranks + 1.0))) < 1e-5
    assert abs(run.test["NDCG@10"] - np.mean((ranks < 10) / np.log2(ranks + 2.0))) < 1e-5


def open_state(change: tuple[str, bytes], place: Path) -> None:
    run = placed(change, place, "runs") / "SASRec" / "data" / "none-seed1"
    assert all(isinstance(tensor, torch.Tensor) for tensor in load_state(run / "checkpoints" / "best.ckpt").values())


RUN = "runs/SASRec/data/none-seed1"
A_RUNS = f"{RUN}/checkpoints/best.ckpt"
KINDS: dict[str, tuple[SearchStrategy[Any], Check]] = {
    "manifest": (changed("data/manifest.json"), open_dataset),
    "sequences' arrays": (
        changed(*(f"data/sequences/{name}.npy" for name in ("offsets", "items", "timestamps"))),
        open_dataset,
    ),
    "items.parquet": (changed("data/items.parquet", "data/users.parquet"), open_dataset),
    "vectors": (changed("vectors/data/mine.npy"), open_vectors),
    "vectors' json": (changed("vectors/data/mine.json"), open_vectors),
    "other vectors": (
        st.one_of(st.tuples(st.just("v.npy"), arrays.map(npy)), st.tuples(st.just("v"), torch_content.map(saved))),
        open_other_vectors,
    ),
    "metrics": (changed(f"{RUN}/metrics.json", f"{RUN}/config.json"), open_run),
    "ranks": (
        st.one_of(changed(f"{RUN}/ranks-test.npy"), st.tuples(st.just(f"{RUN}/ranks-test.npy"), arrays.map(npy))),
        open_run,
    ),
    "run's checkpoint": (
        st.one_of(changed(A_RUNS), st.tuples(st.just(A_RUNS), torch_content.map(saved))),
        open_state,
    ),
}
