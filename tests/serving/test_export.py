"""Exports: the graph by PyTorch, the index by brute force, what is measured by the metrics, and mixed-up folders."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.metrics import ndcg_at_k
from seqrec.serving import export
from seqrec.serving import index as index_module
from seqrec.serving.catalogue import Catalogue
from seqrec.serving.export import export_run
from seqrec.serving.folder import read_manifest, replace_export
from seqrec.serving.index import best_items, build_index, fit_index, recall, round_index, search
from seqrec.serving.options import ExportOptions
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("spread", [0, 0.8])
def test_an_index_finds_what_brute_force_does(form: str, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    vectors = draw.standard_normal((3001, 16)).astype(np.float32)
    vectors *= np.exp(spread * draw.standard_normal((3001, 1))).astype(np.float32)  # a few are much longer
    vectors[0] = 100  # never found
    users = draw.standard_normal((200, 16)).astype(np.float32)
    monkeypatch.setattr(index_module, "LITTLE", 0)  # both kinds are built
    asked = draw.standard_normal((100, 16)).astype(np.float32)
    best = best_items(vectors, asked, 10)
    index = round_index(fit_index(vectors, asked, best, 0.99), form, vectors, asked, best, 0.99)
    assert recall(search(index, vectors, asked, 10)[0], best) >= 0.99 and index.ntotal == 3000
    for levelled in (True, False):
        other = round_index(build_index(vectors, levelled), form, vectors, asked, best, 0.99)
        other.hnsw.efSearch = max(index.hnsw.efSearch // 2, 10)
        assert other.d == 16 + levelled and recall(search(other, vectors, asked, 10)[0], best) < 0.995
    best = np.argsort(-(users @ vectors[1:].T), axis=1)[:, :10] + 1
    assert (np.sort(best_items(vectors, users, 10)) == np.sort(best)).all()
    found, scores = search(index, vectors, users, 10)
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), best.tolist(), strict=True)])
    assert recall(found, best) == pytest.approx(share) and share > 0.97
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", users, vectors[found]), rtol=1e-4, atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("leave_out_seen", [False, True])
def test_the_loss_is_measured_by_the_metric(leave_out_seen: bool, tiny: Dataset) -> None:
    draw, histories = np.random.default_rng(2), leave_one_out(tiny).test
    vectors = draw.standard_normal((41, 8)).astype(np.float32)
    users = draw.standard_normal((len(histories), 8)).astype(np.float32)
    exact = export._ndcg_of_all(users, vectors, histories, leave_out_seen)
    index = build_index(vectors)
    index.hnsw.efSearch = 100  # finds all
    np.testing.assert_array_equal(export._ndcg_of_found(index, vectors, users, histories, leave_out_seen), exact)
    ranks = []
    for row, (start, end) in enumerate(zip(histories.starts, histories.ends, strict=True)):
        scores, target = vectors @ users[row], histories.targets[row]
        hidden = set(histories.items[start:end].tolist()) - {target} if leave_out_seen else set()
        ranks.append(sum(scores[i] > scores[target] for i in range(1, 41) if i not in hidden))
    np.testing.assert_array_equal(exact, ndcg_at_k(np.array(ranks), 10))
    assert 0 < exact.mean() < 1


@pytest.mark.parametrize("leave_out_seen", [False, True])
def test_targets_are_placed_by_their_texts_as_by_hand(leave_out_seen: bool, texts: Dataset) -> None:
    draw, histories = np.random.default_rng(3), leave_one_out(texts).test
    vectors = draw.standard_normal((41, 8)).astype(np.float32)
    users = draw.standard_normal((len(histories), 8)).astype(np.float32)
    catalogue = Catalogue(texts.item_table().with_columns(count=1), ["title"])
    found = export._ndcg_of_placed(users, vectors, histories, leave_out_seen, catalogue)
    assert found is not None
    everyone = np.arange(1, 41)
    for row, target in enumerate(histories.targets.tolist()):
        cosines = catalogue.likeness(target, everyone)
        cosines[target - 1] = 0
        near = np.argsort(-cosines, kind="stable")[:3] + 1
        weights = cosines[near - 1] / cosines[near - 1].sum()
        mean = weights @ vectors[near]
        placed = mean / np.linalg.norm(mean) * (weights @ np.linalg.norm(vectors[near], axis=1))
        had = set(histories.items[histories.starts[row] : histories.ends[row]].tolist()) if leave_out_seen else set()
        others = [item for item in everyone if item != target and item not in had]
        rank = sum(float(users[row] @ vectors[item]) >= float(users[row] @ placed) for item in others)
        assert found[row] == pytest.approx(float(ndcg_at_k(np.array([rank]), 10)[0]))
    assert 0 < found.mean() < 1


def test_an_export_is_used_without_this_project(
    exported: Path, served_run: Path, texts: Dataset, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "elsewhere")
    text = (folder / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = [int(word) for word in done.stdout.strip("[] \n").split()]
    _, recommender = load_run(served_run, texts.path)
    history = Histories(np.array([1, 2, 3], dtype=np.int32), np.zeros(1, dtype=np.int64), *np.array([[0], [3]]))
    _, items, _ = next(recommend(recommender, history, 10))
    assert found == items[0].tolist()


def test_parts_of_two_exports_are_refused(exported: Path, tmp_path: Path) -> None:
    assert read_manifest(exported)["name"] == "our-model"
    for name in read_manifest(exported)["files"]:
        folder = Path(shutil.copytree(exported, tmp_path / name))
        with (folder / name).open("ab") as file:
            file.write(b"x")
        with pytest.raises(UserError, match="is not the file that this export was written with"):
            read_manifest(folder)
        (folder / name).unlink()
        with pytest.raises(MissingFileError, match="does not exist"):
            read_manifest(folder)
    folder = Path(shutil.copytree(exported, tmp_path / "path"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../path/README.md"] = "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MissingFileError):
        read_manifest(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="export the run again"):
        read_manifest(folder)


def test_an_export_is_whole_or_absent(exported: Path, tmp_path: Path) -> None:
    place = tmp_path / "export"
    with pytest.raises(ZeroDivisionError), replace_export(place, False) as folder:
        (folder / "part").write_text("")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    shutil.copytree(exported, place)
    with pytest.raises(UserError, match="add --overwrite"), replace_export(place, False):
        pass
    with pytest.raises(ZeroDivisionError), replace_export(place, True):
        raise ZeroDivisionError
    assert read_manifest(place)["name"] == "our-model"
    with replace_export(place, True) as folder:
        (folder / "new").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["export"] and (place / "new").is_file()
    shutil.rmtree(place)
    shutil.copytree(exported, place.with_name(".export.replaced"))  # a kill between the two renames
    with pytest.raises(ZeroDivisionError), replace_export(place, True):
        raise ZeroDivisionError
    assert read_manifest(place)["name"] == "our-model" and [path.name for path in tmp_path.iterdir()] == ["export"]
    shutil.rmtree(place)
    place.mkdir()
    with pytest.raises(UserError, match="is no export: it is left alone"), replace_export(place, True):
        pass


def test_what_cannot_be_exported_is_refused(served_run: Path, texts: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--forms are some of fp32, fp16, int8"):
        ExportOptions(forms=("fp64",))
    with pytest.raises(UserError, match="--name"):
        export_run(served_run, tmp_path / "export", "../up", (texts.path, None), False, ExportOptions())
    with pytest.raises(MissingFileError, match="holds no finished run"):
        export_run(tmp_path, tmp_path / "export", None, (None, None), False, ExportOptions())
