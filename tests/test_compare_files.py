"""One reference for all families, the table as a file, and results as DataFrames."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seqrec
from scripts.compare import Config
from seqrec.basics.errors import UserError
from seqrec.basics.formatting import MINUS
from seqrec.comparison.export import write_table
from seqrec.comparison.intervals import holm
from seqrec.comparison.page import render_html
from seqrec.comparison.report import format_text
from seqrec.comparison.tables import Comparison, compare_runs


@pytest.fixture(scope="module")
def across(study_root: Path) -> Comparison:
    return compare_runs(study_root / "runs", study_root / "data", "toy", reference="SASRec/longformer")


def test_a_reference_is_compared_across_families_and_corrected_once(study: Comparison, across: Comparison) -> None:
    table = across.tables[0]
    assert [(d.family, d.group) for d in table.differences] == [
        row.key for row in table.groups if row.key != ("SASRec", "longformer")
    ]
    assert [d.p_holm for d in table.differences] == pytest.approx(holm(np.array([d.p for d in table.differences])))
    knn = table.difference("Baselines", "item-knn")
    own, base = (
        np.mean([run.by_user("NDCG@10") for run in table.runs if (run.family, run.group) == key], axis=0)
        for key in (("Baselines", "item-knn"), ("SASRec", "longformer"))
    )
    assert knn is not None and knn.mean == pytest.approx((own - base).mean())
    assert knn.names == ("item-knn", "SASRec/longformer")
    gain, loss = study.tables[0].difference("SASRec", "longformer"), table.difference("SASRec", "none")
    assert gain is not None and loss is not None and gain.mean == pytest.approx(-loss.mean)
    cells, before = (found.tables[0].slicings[0].rows[0][2] for found in (across, study))  # of Baselines/item-knn
    assert [cell.difference is None for cell in cells] == [cell.mean is None for cell in cells] != [True] * len(cells)
    assert all(cell.difference is None for cell in before)


def test_the_reference_is_named_wherever_differences_stand(across: Comparison) -> None:
    text, page = format_text(across), render_html(across)
    assert "Δ to SASRec/longformer" in text and "reference" in text and "not applicable" not in text
    assert "SASRec/longformer</em> with its" in page and "the family's" not in page
    assert max(map(len, text.splitlines())) <= 110


def test_filters_keep_the_reference(study_root: Path) -> None:
    found = compare_runs(study_root / "runs", study_root / "data", "toy", groups=["item-knn"], reference="SASRec/none")
    assert [row.key for row in found.tables[0].groups] == [("Baselines", "item-knn"), ("SASRec", "none")]
    with pytest.raises(UserError, match=r"--reference 'SASRec/x' has no finished run: give one of .*SASRec/finetune"):
        compare_runs(study_root / "runs", study_root / "data", "toy", reference="SASRec/x")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_of_the_table_holds_its_numbers(study: Comparison, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"new/table.{suffix}"
    write_table(study, path)
    rows = pl.read_csv(path) if suffix == "csv" else pl.read_parquet(path)
    table = study.tables[0]
    assert list(zip(rows["family"], rows["start"], strict=True)) == [row.key for row in table.groups]
    assert rows["NDCG@10"].to_list() == pytest.approx([row.mean["NDCG@10"] for row in table.groups])
    gains = [table.difference(*row.key) for row in table.groups]
    assert rows["difference p_holm"].to_list() == pytest.approx([None if d is None else d.p_holm for d in gains])
    assert rows["train_seconds"].to_list() == [row.cost["train_seconds"] for row in table.groups]


def test_a_file_for_a_paper_has_the_cells_that_are_printed(study: Comparison, tmp_path: Path) -> None:
    for suffix in ("md", "tex"):
        write_table(study, tmp_path / f"table.{suffix}")
    markdown, latex = ((tmp_path / f"table.{suffix}").read_text() for suffix in ("md", "tex"))
    row = next(line for line in markdown.splitlines() if "SASRec" in line and "finetune" in line)
    best = study.tables[0].groups[-1]
    assert [cell.strip() for cell in row.split("|")][1:4] == ["SASRec", "finetune", "3"]
    assert f"{best.mean['NDCG@10']:.4f} ± {best.sd['NDCG@10']:.4f}".replace("0.", ".") in row
    assert r"\toprule" in latex and r"$\pm$" in latex and r"$\Delta$ NDCG@10" in latex
    assert not set(latex) & {"±", "Δ", MINUS}
    with pytest.raises(UserError, match=r"--output must end in \.csv, \.parquet, \.tex or \.md, got .*table\.xlsx"):
        Config(dataset="toy", output=tmp_path / "table.xlsx")


# DataFrames.


def test_results_have_a_row_for_each_run(study_root: Path) -> None:
    frame = seqrec.results("toy", study_root / "runs")
    assert len(frame) == 21
    tuned = frame[(frame.family == "SASRec") & (frame.group == "finetune")]
    assert tuned.seed.tolist() == [42, 43, 44]
    record = json.loads((study_root / "runs/SASRec/toy/finetune-seed43/metrics.json").read_text())
    row = tuned.set_index("seed").loc[43]
    assert row["run"] == "SASRec/toy/finetune-seed43" and row["NDCG@10"] == record["test"]["NDCG@10"]
    assert row["train_seconds"] == 143 and row["split"] == "leave_one_out" and row["best_epoch"] == 12


def test_ranks_have_a_row_for_each_target(study_root: Path) -> None:
    frame = seqrec.ranks("toy", study_root / "runs", study_root / "data")
    one = frame[frame.run == "SASRec/toy/none-seed42"].set_index("user")["rank"]
    ranks = np.load(study_root / "runs/SASRec/toy/none-seed42/ranks-test.npy")
    assert one.to_dict() == {f"user-{u}": rank + 1 for u, rank in enumerate(ranks) if rank >= 0}
    assert len(frame) == 21 * len(one)
