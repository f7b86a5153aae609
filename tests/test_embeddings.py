"""Item vectors on disk: what is saved comes back, and every file that does not fit says why."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seqrec.basics.paths import ROOT
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import Producer, embedding_path, load_embeddings, save_embeddings

Change = Callable[[NDArray[np.float32]], NDArray[np.generic]]
PRODUCER = Producer("Some/encode.py", "ab" * 32, {"max_length": 32})


def make_vectors(dataset: Dataset, width: int = 6) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(3, 2, (dataset.num_items + 1, width)).astype(np.float32)
    vectors[0] = 0
    return vectors


@pytest.fixture
def path(tiny: Dataset, tmp_path: Path) -> Path:
    """Vectors of the tiny dataset under the name `good`."""
    path = embedding_path(tiny, "good", tmp_path)
    save_embeddings(path, make_vectors(tiny), tiny, PRODUCER)
    return path


def test_round_trip(tiny: Dataset, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert path == tmp_path / "tiny" / "good.npy"
    for name in ("good", str(path)):
        loaded = load_embeddings(name, tiny, tmp_path)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, make_vectors(tiny))
    assert not caplog.records
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["item_ids_sha256"] == tiny.item_ids_sha256
    assert manifest["width"] == 6
    assert manifest["producer"] == "Some/encode.py"
    assert manifest["checkpoint_sha256"] == "ab" * 32
    assert manifest["options"] == {"max_length": 32}
    assert sorted(p.name for p in path.parent.iterdir()) == ["good.json", "good.npy"]


def test_saving_again_replaces_both_files(tiny: Dataset, path: Path, tmp_path: Path) -> None:
    vectors = 2 * make_vectors(tiny, 3).astype(np.float64)
    save_embeddings(path, vectors, tiny, PRODUCER)  # type: ignore[arg-type]
    np.testing.assert_array_equal(load_embeddings("good", tiny, tmp_path), 2 * make_vectors(tiny, 3))


def test_vectors_of_other_items(tiny: Dataset, path: Path, tmp_path: Path) -> None:
    manifest = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(manifest | {"item_ids_sha256": "0123456789abcdef"}))
    with pytest.raises(ValueError, match=r"good.npy was made for other items \(sha256 0123456789ab\).*export"):
        load_embeddings("good", tiny, tmp_path)


def test_a_file_that_its_manifest_does_not_describe(tiny: Dataset, path: Path, tmp_path: Path) -> None:
    np.save(path, make_vectors(tiny) * 2)
    with pytest.raises(ValueError, match=r"not the file that its manifest describes.*delete good.json"):
        load_embeddings("good", tiny, tmp_path)
    np.save(path, make_vectors(tiny, 5))
    with pytest.raises(ValueError, match="is 5 wide, its manifest says 6"):
        load_embeddings("good", tiny, tmp_path)


def test_a_plain_file_is_taken_on_trust(
    tiny: Dataset, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(path.with_name("own.npy"), make_vectors(tiny).astype(np.float64))
    np.testing.assert_array_equal(load_embeddings("own", tiny, tmp_path), make_vectors(tiny))
    assert "own.npy has no .json beside it: assuming that row i is item i of tiny" in caplog.text


def test_the_torch_file_of_the_published_code(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tiny" / "finetune" / "item_embeddings_tiny"
    file.parent.mkdir(parents=True)
    torch.save(torch.from_numpy(make_vectors(tiny)), file)
    for name in ("finetune", str(file)):
        np.testing.assert_array_equal(load_embeddings(name, tiny, tmp_path), make_vectors(tiny))
    assert "assuming that row i" in caplog.text
    torch.save({"weight": torch.ones(41, 6)}, file)
    with pytest.raises(ValueError, match="item_embeddings_tiny holds a dict, expected one float array"):
        load_embeddings("finetune", tiny, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v[1:],
            r"shape \(40, 6\), but tiny has 40 items and needs \(41, width\) \(row 0 must be padding: prep",
        ),
        (lambda v: v[:30], r"shape \(30, 6\), but tiny has 40 items and needs \(41, width\); export"),
        (lambda v: v[0], r"shape \(6,\), but tiny"),
        (lambda v: np.where(np.arange(41)[:, None] == 7, np.nan, v), "not finite in 1 rows, the first is item 7"),
        (lambda v: v + 1, "row 0 that is not zero; row 0 is padding, row i is item i"),
        (lambda v: v.astype(np.int64), "holds an array of int64, expected one float array"),
    ],
)
def test_vectors_that_do_not_fit(tiny: Dataset, tmp_path: Path, change: Change, message: str) -> None:
    path = embedding_path(tiny, "bad", tmp_path)
    path.parent.mkdir()
    np.save(path, change(make_vectors(tiny)))
    with pytest.raises(ValueError, match=rf"bad.npy.*{message}"):
        load_embeddings("bad", tiny, tmp_path)


def test_what_does_not_fit_is_not_saved(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the array to be saved has shape \(40, 6\)"):
        save_embeddings(tmp_path / "new.npy", make_vectors(tiny)[1:], tiny, PRODUCER)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_lists_those_there_are(tiny: Dataset, path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no item vectors 'god' for tiny.*\['good'\].*--init_type none"):
        load_embeddings("god", tiny, tmp_path)
    with pytest.raises(FileNotFoundError, match="there: nothing"):
        load_embeddings("good", tiny, tmp_path / "elsewhere")


def test_no_file_can_run_code(tiny: Dataset, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "bomb").write_bytes(pickle.dumps(Bomb()))
    torch.save(Bomb(), tmp_path / "bomb.pt")
    for name in ("bomb.npy", "bomb", "bomb.pt"):
        with pytest.raises(ValueError, match=r"is no whole .*: export it again"):
            load_embeddings(str(tmp_path / name), tiny, tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_damaged_file(tiny: Dataset, path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"good.npy is no whole .*export it again"):
        load_embeddings("good", tiny, tmp_path)


def test_vectors_are_written_under_a_name_and_read_by_name_or_path(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--init_type must be a plain name"):
        embedding_path(tiny, "../../escaped", tmp_path)
    folder, outside = tmp_path / "embedding", tmp_path / "mine.npy"
    np.save(outside, np.zeros((41, 3), dtype=np.float32))
    assert load_embeddings(str(outside), tiny, folder).shape == (41, 3)
    with pytest.raises(FileNotFoundError, match=r"there is no file of item vectors \.\./mine"):
        load_embeddings("../mine", tiny, folder)  # folder/tiny/../mine.npy would be one


def test_the_documented_way_to_bring_a_file(
    tiny: Dataset, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = ROOT / "embedding" / "README.md"
    code = guide.read_text().split("```python\n")[1].split("```")[0]
    assert "data/demo" in code
    (tmp_path / "embedding").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(code.replace("data/demo", str(tiny_path)).replace("embedding/demo", "embedding/tiny"), {})
    assert load_embeddings("mine", tiny, tmp_path / "embedding").shape == (tiny.num_items + 1, 64)
