"""Answers of exports and runs, by what `recommend` gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.serving import exported as exported_module
from seqrec.serving.answers import Answering, Query
from seqrec.serving.export import export_run
from seqrec.serving.exported import Exported
from seqrec.serving.index import search
from seqrec.serving.options import ExportOptions
from seqrec.serving.run_model import Run
from seqrec.training.recommend import recommend
from seqrec.training.restore import load_run
from tests.interrupted import Command

NOTHING = np.zeros(0, dtype=np.int64)


@pytest.fixture(scope="module", params=["all", "index", "fp16", "run"])
def model(request: pytest.FixtureRequest, exported: Path, served_run: Path) -> Answering:
    if request.param == "run":
        return Run(served_run)
    form = "fp16" if request.param == "fp16" else None
    return Exported(exported, form, "index" if form else request.param)


def test_users_get_what_recommend_gives_them(model: Answering, served_run: Path, texts: Dataset) -> None:
    dataset, recommender = load_run(served_run, texts.path)
    whole = dataset.whole_histories()
    queries = []
    for start, end in zip(whole.starts, whole.ends, strict=True):
        history = whole.items[start:end].astype(np.int64)
        queries.append(Query(history, 5, history))
    answers = model.answer(queries)
    close = 0.05 if getattr(model, "form", "fp32") == "fp16" else 1e-4
    for rows, items, scores in recommend(recommender, whole, 5):
        for row, expected, own in zip(rows, items, scores, strict=True):
            assert answers[row].items.tolist() == expected.tolist() or close > 1e-4
            np.testing.assert_allclose(answers[row].scores, own, atol=close)


@pytest.mark.parametrize("search", ["all", "index"])
def test_what_a_history_has_gets_its_score(search: str, texts_path: Path, tmp_path: Path) -> None:
    flags = ("--hidden_units", "16", "--maxlen", "7", "--num_epochs", "2", "--repeat_score")
    run = Command("SASRec", texts_path, tmp_path / "runs", flags)
    run.run()
    export_run(run.folder, tmp_path / "export", None, (None, None), False, ExportOptions(forms=("fp32",)))
    model = Exported(tmp_path / "export", None, search)
    assert model.repeat_score < -0.01 and f"{model.repeat_score:+.4g} for an item" in (
        (tmp_path / "export/README.md").read_text()
    )
    dataset, recommender = load_run(run.folder, texts_path)
    whole = dataset.whole_histories()
    histories = [whole.items[a:b].astype(np.int64) for a, b in zip(whole.starts, whole.ends, strict=True)]
    for include_seen in (True, False):
        asked = [Query(history, 40, NOTHING if include_seen else history) for history in histories]
        answers = model.answer(asked)
        for rows, _, scores in recommend(recommender, whole, 40, include_seen):
            for row, own in zip(rows, scores, strict=True):
                np.testing.assert_allclose(answers[row].scores, own[own > -np.inf], atol=1e-4)


def test_what_is_left_out_and_what_is_allowed(model: Answering) -> None:
    history = np.array([3, 4])
    [best] = model.answer([Query(history, 40, NOTHING)])
    assert sorted(best.items.tolist()) == list(range(1, 41)) and best.by == "model"
    [some] = model.answer([Query(history, 6, best.items[:4])])
    assert some.items.tolist() == best.items[4:10].tolist()
    allowed = np.array([7, 30, 12])
    first, rest = model.answer([Query(history, 6, np.array([30]), allowed), Query(history, 2, NOTHING)])
    assert first.items.tolist() == [item for item in best.items.tolist() if item in (7, 12)]
    assert rest.items.tolist() == best.items[:2].tolist()
    assert not len(model.answer([Query(history, 6, NOTHING, NOTHING)])[0].items)


def test_who_leaves_out_much_does_not_widen_the_search_for_others(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, history = Exported(exported, None, "index"), np.array([3, 4])
    queries = [Query(history, 3, np.arange(1, 31)), Query(history, 2, np.array([7])), Query(history, 4, np.arange(9))]
    expected, widths = model.answer(queries), []

    def searched(*given: Any) -> Any:
        widths.append(given[3])
        return search(*given)

    monkeypatch.setattr(exported_module, "MOST_LEFT_OUT", 9)
    monkeypatch.setattr(exported_module, "search", searched)
    for own, wanted in zip(model.answer(queries), expected, strict=True):
        assert own.items.tolist() == wanted.items.tolist()
        np.testing.assert_allclose(own.scores, wanted.scores, atol=1e-5)
    assert widths == [13]


def test_without_a_history_the_popular_is_shown(model: Answering) -> None:
    counts = model.catalogue.counts
    queries = [Query(NOTHING, 3, np.array([counts.argmax()])), Query(np.array([1]), 3, np.array([1]))]
    popular, ranked = model.answer(queries)
    assert popular.by == "popularity" and ranked.by == "model" and counts.argmax() not in popular.items
    assert counts[popular.items].tolist() == sorted(np.delete(counts, counts.argmax()).tolist(), reverse=True)[:3]
    assert ranked.items.tolist() == model.answer(queries[1:])[0].items.tolist()


def test_similar_items_have_the_greatest_cosines(model: Answering) -> None:
    assert isinstance(model, Exported | Run)
    vectors = (model.vectors.trained if isinstance(model, Exported) else model.vectors.numpy())[1:]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[8]
    cosines[8] = -2
    found = model.similar(9, 5)
    assert found.items.tolist() == (np.argsort(-cosines)[:5] + 1).tolist()
    np.testing.assert_allclose(found.scores, np.sort(-cosines)[:5] * -1, atol=1e-5)


def test_a_catalogue_is_searched_by_words(model: Answering, texts: Dataset) -> None:
    catalogue = model.catalogue
    titles = texts.item_table()["title"].to_list()
    rows = catalogue.search("GREEN red", 40).tolist()
    assert sorted(rows) == [n for n, title in enumerate(titles, 1) if "red" in title and "green" in title]
    assert catalogue.counts[rows].tolist() == sorted(catalogue.counts[rows].tolist(), reverse=True)
    assert len(catalogue.search("", 7)) == 7 and not len(catalogue.search("(.*", 7))
    assert catalogue.find(["item-3", 3, "item-1"])[0].tolist() == [3, 1] and catalogue.find([3])[1] == ["3"]


def test_what_is_near_by_words_and_by_users(model: Answering, texts: Dataset) -> None:
    others = np.array([1, 2, 9])
    near = model.catalogue.likeness(9, others)
    assert near[2] == pytest.approx(1) and (near[:2] < 1).all()
    train = [set(texts.items[a : b - 2].tolist()) for a, b in zip(texts.offsets[:-1], texts.offsets[1:], strict=True)]
    had = [{user for user, items in enumerate(train) if item in items} for item in range(41)]
    together = model.catalogue.togetherness(5, np.arange(1, 41))
    expected = [len(had[5] & had[i]) / max((len(had[5]) * len(had[i])) ** 0.5, 1) for i in range(1, 41)]
    expected[4] = 0
    np.testing.assert_allclose(together[together > 0], np.array(expected)[together > 0], rtol=1e-5)
    assert (together > 0).sum() == min(20, np.count_nonzero(expected)) and together.max() == pytest.approx(
        max(expected)
    )


def test_a_form_that_is_not_there_is_refused(exported: Path) -> None:
    with pytest.raises(UserError, match="has the forms fp32, fp16, int8, not fp8"):
        Exported(exported, "fp8")
