"""From run folders to tables: statistics, checks, slices and reports."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.compare import Config, main
from seqrec.basics.errors import UserError
from seqrec.comparison.intervals import holm
from seqrec.comparison.page import render_html
from seqrec.comparison.report import format_text, write_report
from seqrec.comparison.results import read_run, user_metric
from seqrec.comparison.slices import length_bins
from seqrec.comparison.tables import Comparison, compare_runs, list_pairs
from tests.studies import ITEMS, PROTOCOL, USERS, draw_ranks, write_dataset, write_run, write_study

# Reading runs.


def test_user_metric_by_hand() -> None:
    ranks = np.array([0, 1, 9, 10])
    assert user_metric(ranks, "NDCG@10") == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(11), 0])
    assert user_metric(ranks, "Recall@2").tolist() == [1, 1, 0, 0]
    assert user_metric(ranks, "MRR") == pytest.approx([1, 1 / 2, 1 / 10, 1 / 11])
    with pytest.raises(ValueError, match="unknown metric 'ndcg': expected NDCG@k, Recall@k or MRR"):
        user_metric(ranks, "ndcg")


def test_means_and_sd_are_those_of_the_ranks(study: Comparison) -> None:
    row = next(r for r in study.tables[0].groups if (r.family, r.group) == ("SASRec", "none"))
    ranks = [draw_ranks(seed + 100, 1.0)[1:] for seed in (42, 43, 44)]
    recall = [sum(r < 10 for r in one) / len(one) for one in ranks]
    assert row.by_seed["Recall@10"] == pytest.approx(recall)
    assert row.mean["Recall@10"] == pytest.approx(sum(recall) / 3)
    assert row.sd["Recall@10"] == pytest.approx((sum((x - sum(recall) / 3) ** 2 for x in recall) / 2) ** 0.5)
    assert row.cost["train_seconds"] == 143 and row.cost["peak_memory_bytes"] == 3 << 29


def edit_metrics(folder: Path, **changes: Any) -> None:
    file = folder / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_reading_refuses_contradictions(tmp_path: Path) -> None:
    ranks = draw_ranks(0, 1.0)
    folder = write_run(tmp_path, "SASRec", "none", 1, ranks)
    record = json.loads((folder / "metrics.json").read_text())

    edit_metrics(folder, test=record["test"] | {"NDCG@10": record["test"]["NDCG@10"] + 1e-5})
    with pytest.raises(ValueError, match=r"none-seed1.*says test NDCG@10 = .* gives"):
        read_run(folder)
    edit_metrics(folder, test=record["test"] | {"MRR": float("nan")})
    with pytest.raises(ValueError, match="says test MRR = nan"):
        read_run(folder)
    edit_metrics(folder, test=record["test"] | {"users": 3})
    with pytest.raises(ValueError, match=r"says 3 test users but .* ranks 399"):
        read_run(folder)
    edit_metrics(folder, test=record["test"], family="Bert4Rec")
    with pytest.raises(ValueError, match="says Bert4Rec/toy but lies under SASRec/toy"):
        read_run(folder)
    edit_metrics(folder, family="SASRec", protocol={"split": "leave_one_out"})
    with pytest.raises(ValueError, match="has no 'sequences_sha256', expected str"):
        read_run(folder)
    edit_metrics(folder, protocol=PROTOCOL | {"sample_size": 20})
    with pytest.raises(ValueError, match=r"ranks from -1 to 59, expected 0 to 20 \(21 candidates\)"):
        read_run(folder)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json is not JSON in line 1"):
        read_run(folder)
    (folder / "metrics.json").write_text(json.dumps(record))
    (folder / "ranks-test.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"ranks-test\.npy is no whole \.npy file"):
        read_run(folder)
    (folder / "ranks-test.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"ranks-test\.npy does not exist"):
        read_run(folder)


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "none",
    "../..",
    [],
    [1],
    {},
    {"a": []},
)


def test_no_value_in_a_runs_files_gives_a_traceback(tmp_path: Path) -> None:
    hashes = write_dataset(tmp_path / "data" / "toy", [[1], *[[1, 2, 3]] * (USERS - 1)])
    folder = write_run(tmp_path / "runs", "SASRec", "none", 1, draw_ranks(0, 1.0), **hashes)
    record = json.loads((folder / "metrics.json").read_text())
    parts: list[tuple[dict[str, Any], str]] = [(record, key) for key in (*record, "vectors_sha256")]
    parts += [(record[part], key) for part in ("protocol", "test", "cost") for key in record[part]]
    refused = 0
    for holder, key in parts:
        before = dict(holder)
        data = tmp_path / ("data" if holder is record["protocol"] else "no data")
        for junk in JUNK:
            holder[key] = junk
            (folder / "metrics.json").write_text(json.dumps(record))
            try:
                found = compare_runs(tmp_path / "runs", data, "toy")
                assert format_text(found) and (holder is not record["cost"] or render_html(found))
            except UserError as error:
                assert str(folder if key != "split" else tmp_path) in str(error) and "\n" not in str(error)
                refused += 1
        holder.clear()
        holder.update(before)
    assert len(parts) * len(JUNK) > 400 and refused > 300
    (folder / "metrics.json").write_text(json.dumps(record))
    for text in ("[]", "3", "", "{", '"a"', "null", "[" * 10_000, '{"a": 1, "a": 2}', '{"lr": NaN}'):
        for name in ("metrics.json", "config.json"):
            kept = (folder / name).read_text() if (folder / name).exists() else "{}"
            (folder / name).write_text(text)
            with pytest.raises(UserError, match=rf"{name}"):
                compare_runs(tmp_path / "runs", tmp_path, "toy")
            (folder / name).write_text(kept)


def test_runs_of_one_protocol_rank_the_same_users(tmp_path: Path) -> None:
    ranks = draw_ranks(0, 1.0)
    write_run(tmp_path, "SASRec", "none", 1, ranks)
    other = ranks.copy()
    other[5] = -1
    write_run(tmp_path, "SASRec", "none", 2, other)
    with pytest.raises(ValueError, match=r"none-seed2 was tested on other users than .*none-seed1"):
        compare_runs(tmp_path, tmp_path / "data", "toy")


def test_a_sample_of_users_is_compared_with_runs_of_all(tmp_path: Path) -> None:
    ranks, drawn = draw_ranks(0, 1.0), draw_ranks(1, 2.0)
    drawn[np.arange(USERS) % 3 > 0] = -1
    write_run(tmp_path, "SASRec", "none", 1, ranks)
    write_run(tmp_path, "Baselines", "ask", 1, drawn, drawn_users=int((drawn >= 0).sum()), draw_seed=1)
    write_run(tmp_path, "Baselines", "elsewhere", 1, ranks, sample_size=ITEMS - 1)
    found = compare_runs(tmp_path, tmp_path / "data", "toy", reference="SASRec/none")
    sample = next(table for table in found.tables if "drawn_users" in table.protocol)
    assert [(row.family, row.group) for row in sample.groups] == [("Baselines", "ask"), ("SASRec", "none")]
    assert sample.users == (drawn >= 0).sum() and f"{sample.users:,} users, drawn from all" in format_text(found)
    one, other = (user_metric(numbers[drawn >= 0], "NDCG@10") for numbers in (drawn, ranks))
    difference = sample.difference("Baselines", "ask")
    assert difference is not None and difference.mean == pytest.approx((one - other).mean())
    assert sample.groups[1].mean["NDCG@10"] == pytest.approx(other.mean())
    assert sorted(table.users for table in found.tables) == [sample.users, *[int((ranks >= 0).sum())] * 2]


def test_one_seed_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "SASRec", "none", 1, draw_ranks(0, 1.0))
    write_run(tmp_path, "SASRec", "copy", 1, draw_ranks(0, 1.0))
    edit_metrics(folder.with_name("copy-seed1"), group="none")
    with pytest.raises(ValueError, match="are both SASRec none with seed 1"):
        compare_runs(tmp_path, tmp_path / "data", "toy")


def test_seeds_of_a_group_share_their_flags(tmp_path: Path) -> None:
    given = {"lr": 0.1, "start": "/here/file", "embedding_dir": "/here/embedding", "seed": 1, "devices": 1}
    for seed, changes in (
        (1, {}),
        (2, {"start": "/there/file", "embedding_dir": "/there/other", "seed": 2, "devices": 4, "new": 1}),
    ):
        folder = write_run(tmp_path, "SASRec", "none", seed, draw_ranks(0, 1.0))
        start = {"start_from": f"/runs/first-seed{seed}"}  # each seed may go on from a run of its own
        (folder / "config.json").write_text(json.dumps(given | changes | start))
    compare_runs(tmp_path, tmp_path / "data", "toy")
    (folder / "config.json").write_text(json.dumps(given | {"start_from": "/runs/first-seed1", "seed": 2}))
    compare_runs(tmp_path, tmp_path / "data", "toy")  # and so may all from the same
    (folder / "config.json").write_text(json.dumps(given | {"start_from": "/runs/second-seed2", "seed": 2}))
    with pytest.raises(ValueError, match=r"differ in more than the seed \(start_from first-seed1 and second-seed2\)"):
        compare_runs(tmp_path, tmp_path / "data", "toy")
    (folder / "config.json").write_text(json.dumps(given | {"lr": 0.2, "start": "plain"}))
    with pytest.raises(
        ValueError,
        match=r"none-seed2 differ in more than the seed \(lr 0.1 and 0.2, start file and plain\)",
    ):
        compare_runs(tmp_path, tmp_path / "data", "toy")


def test_no_run_names_the_folder_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no finished run in .*\*/toy/\*.*`bash finetune.sh --dataset toy` in .*SASRec"
    ):
        compare_runs(tmp_path, tmp_path, "toy")


def test_runs_on_other_data_are_refused(tmp_path: Path) -> None:
    hashes = write_dataset(tmp_path / "data" / "toy", [[1, 2, 3]] * USERS)
    write_run(tmp_path / "runs", "SASRec", "none", 1, draw_ranks(0, 1.0), **hashes | {"sequences_sha256": "7" * 64})
    with pytest.raises(
        ValueError,
        match=rf"none-seed1 was made on data with sequences_sha256 7{{12}}, but .*toy has "
        rf"{hashes['sequences_sha256'][:12]}.*prepare\.py",
    ):
        compare_runs(tmp_path / "runs", tmp_path / "data", "toy")


# Tables.


def test_rows_are_ordered_and_unfinished_runs_listed(study: Comparison) -> None:
    table = study.tables[0]
    assert [(r.family, r.group) for r in table.groups] == [
        ("Baselines", "item-knn"),
        *((f, g) for f in ("Bert4Rec", "SASRec") for g in ("none", "longformer", "finetune")),
    ]
    assert study.unfinished == ("SASRec/toy/pretrain-seed42",)


def test_pairs_are_tested_once_each() -> None:
    groups = [("A", "none"), ("A", "longformer"), ("A", "finetune"), ("A", "mine"), ("B", "knn")]
    assert [(*own, base) for own, (_, base) in list_pairs(groups)] == [
        ("A", "longformer", "none"),
        ("A", "finetune", "none"),
        ("A", "mine", "none"),
        ("A", "finetune", "longformer"),
    ]
    across = list_pairs(groups, ("A", "longformer"))
    assert across == [(key, ("A", "longformer")) for key in groups if key != ("A", "longformer")]


def test_differences_are_paired_and_corrected_together(study: Comparison) -> None:
    table = study.tables[0]
    assert len(table.differences) == 6
    assert [d.p_holm for d in table.differences] == pytest.approx(holm(np.array([d.p for d in table.differences])))
    gain = table.difference("SASRec", "finetune")
    none, tuned = (
        np.mean([user_metric(draw_ranks(s + int(100 * x), x)[1:], "NDCG@10") for s in (42, 43, 44)], axis=0)
        for x in (1.0, 1.9)
    )
    assert gain is not None and gain.mean == pytest.approx((tuned - none).mean())
    assert gain.relative == pytest.approx(tuned.mean() / none.mean() - 1)
    assert gain.low < gain.mean < gain.high and gain.low > 0 and gain.is_clear
    sds = {r.group: r.sd["NDCG@10"] or 0 for r in table.groups if r.family == "SASRec"}
    assert gain.seed_error == pytest.approx(np.sqrt((sds["none"] ** 2 + sds["finetune"] ** 2) / 3))


def test_protocols_do_not_share_a_table(tmp_path: Path) -> None:
    ranks = np.minimum(draw_ranks(0, 1.0), 20)
    write_run(tmp_path, "SASRec", "none", 1, ranks)
    write_run(tmp_path, "SASRec", "finetune", 1, ranks, sample_size=20)
    comparison = compare_runs(tmp_path, tmp_path / "data", "toy")
    assert [[r.group for r in t.groups] for t in comparison.tables] == [["none"], ["finetune"]] or [
        [r.group for r in t.groups] for t in comparison.tables
    ] == [["finetune"], ["none"]]
    text = format_text(comparison)
    assert "against all 60 items" in text and "against 20 sampled items" in text and "one seed" in text
    assert "No slices: " in text and "does not exist" in text and "one seed" in render_html(comparison)


def test_filters(tmp_path: Path) -> None:
    write_study(tmp_path)
    chosen = compare_runs(
        tmp_path, tmp_path / "data", "toy", "Recall@5", families=["SASRec"], groups=["none", "finetune"]
    )
    assert [r.group for r in chosen.tables[0].groups] == ["none", "finetune"]
    assert chosen.tables[0].metrics == ("NDCG@10", "Recall@10", "MRR", "Recall@5")
    with pytest.raises(ValueError, match=r"--groups names \['tuned'\], but the finished runs have .*'finetune'"):
        compare_runs(tmp_path, tmp_path / "data", "toy", groups=["tuned"])


def test_a_difference_does_not_depend_on_the_other_rows(study: Comparison, tmp_path: Path) -> None:
    write_study(tmp_path)
    alone = compare_runs(tmp_path, tmp_path / "data", "toy", families=["Bert4Rec"])
    one, other = (c.tables[0].difference("Bert4Rec", "finetune") for c in (alone, study))
    assert one is not None and other is not None and one == replace(other, p_holm=one.p_holm)


def place_ranks(seed: int, hit_rate: float) -> NDArray[np.int64]:
    """Return (USERS,) ranks 0 for a share of the users and 50 for the rest: NDCG@10 is the share."""
    return np.where(np.random.default_rng(seed).permutation(USERS) < hit_rate * USERS, 0, 50)


def write_stalled_study(runs: Path) -> None:
    """Write a group that is no better than `none`, one of whose seeds stalled at its first epoch below recency."""
    for seed, (none, start) in enumerate(((0.40, 0.42), (0.41, 0.40), (0.15, 0.42)), start=1):
        folder = write_run(runs, "SASRec", "none", seed, place_ranks(seed, none))
        write_run(runs, "SASRec", "longformer", seed, place_ranks(seed + 3, start))
    edit_metrics(folder, best_epoch=2)
    (folder / "config.json").write_text('{"eval_every": 2}')
    write_run(runs, "Baselines", "recency", 1, place_ranks(9, 0.2))


def test_a_stalled_seed_earns_no_star_and_a_warning(tmp_path: Path) -> None:
    write_stalled_study(tmp_path)
    comparison = compare_runs(tmp_path, tmp_path / "data", "toy")
    table = comparison.tables[0]
    gain = table.difference("SASRec", "longformer")
    assert gain is not None and gain.relative is not None and gain.relative > 0.25
    assert gain.mean > 4 * gain.user_error  # which is why users alone would give it a star
    assert gain.low < 0 < gain.high and not gain.is_clear
    assert {doubt.run.folder.name for doubt in table.doubts} == {"none-seed3"}
    assert [doubt.reason for doubt in table.doubts] == [
        "its best of 22 epochs was the first that was validated",
        "NDCG@10 0.1500 is below the baseline recency, 0.2000",
        "NDCG@10 0.1500 is far from 0.4000, the median of its 3 seeds",
    ]
    for shown in (format_text(comparison), render_html(comparison)):
        assert shown.count("SASRec/toy/none-seed3") >= 3 and "is far from 0.4000" in shown
    warned = write_report(comparison, tmp_path / "a")["png"].read_bytes()
    silent = replace(comparison, tables=(replace(table, doubts=()),))
    assert write_report(silent, tmp_path / "b")["png"].read_bytes() != warned


def test_a_run_is_left_out_by_the_name_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stalled_study(tmp_path)
    name = "SASRec/toy/none-seed3"
    main(Config(dataset="toy", runs_dir=tmp_path, data_dir=tmp_path, leave_out=(name,)))
    assert f"Left out, as --leave_out says:\n  {name}" in capsys.readouterr().out
    record = json.loads((tmp_path / "compare" / "toy" / "comparison.json").read_text())
    assert record["left_out"] == [name] and record["tables"][0]["warnings"] == []
    assert len(record["tables"][0]["runs"]) == 6
    assert record["tables"][0]["differences"][0]["mean"] == pytest.approx(0.41333 - 0.405, abs=1e-4)
    page = (tmp_path / "compare" / "toy" / "comparison.html").read_text()
    assert f"<code>{name}</code>" in page and f"--leave_out {name}" in page
    with pytest.raises(
        ValueError, match=r"--leave_out names \['none-seed3'\], but the finished runs are \['Baselines/toy"
    ):
        compare_runs(tmp_path, tmp_path, "toy", leave_out=["none-seed3"])


def test_one_seed_is_said_and_earns_no_star(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path, "SASRec", "none", seed, place_ranks(seed, 0.1))
    write_run(tmp_path, "SASRec", "longformer", 1, place_ranks(4, 0.9))
    comparison = compare_runs(tmp_path, tmp_path / "data", "toy")
    gain = comparison.tables[0].difference("SASRec", "longformer")
    assert gain is not None and gain.low > 0.7 and gain.p is None and gain.p_holm is None and not gain.is_clear
    paths = write_report(comparison, tmp_path / "out")
    told = json.loads(paths["json"].read_text())["tables"][0]["differences"][0]
    assert (told["one_seed"], told["star"], told["p"]) == (True, False, None)
    text = format_text(comparison)
    assert "one seed" in text and "Holm over 0 tests" in text and not re.search(r"\d\*", text)
    assert "one seed" in paths["html"].read_text()


def test_a_group_starts_from_one_file_of_vectors(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "SASRec", "longformer", seed, place_ranks(seed, 0.3)) for seed in (1, 2, 3)]
    edit_metrics(folders[1], vectors_sha256="a" * 64)  # the first is of a version that recorded none
    compare_runs(tmp_path, tmp_path / "data", "toy")
    for other, said in (("b" * 64, "bbbbbbbbbbbb"), (None, "none")):
        edit_metrics(folders[2], vectors_sha256=other)
        with pytest.raises(
            ValueError,
            match=rf"-seed2 and .*-seed3 read different item vectors \(sha256 aaaaaaaaaaaa and .*{said}\)"
            r".*--run_name.*--leave_out SASRec/toy/longformer-seed2",
        ):
            compare_runs(tmp_path, tmp_path / "data", "toy")
    compare_runs(tmp_path, tmp_path / "data", "toy", leave_out=["SASRec/toy/longformer-seed2"])
    for seed, folder in enumerate(folders, 1):  # each seed from vectors of its own, which their names say
        (folder / "config.json").write_text(json.dumps({"init_type": f"mine-seed{seed}", "seed": seed}))
    compare_runs(tmp_path, tmp_path / "data", "toy")


def test_epochs_count_from_one(tmp_path: Path) -> None:
    expected = {0: 1, 1: 1, 7: 7, -1: None, None: None}  # 0 and -1 are of earlier versions
    for seed, epoch in enumerate(expected):
        edit_metrics(write_run(tmp_path, "SASRec", "none", seed, place_ranks(seed, 0.3)), best_epoch=epoch)
    runs = compare_runs(tmp_path, tmp_path / "data", "toy").tables[0].runs
    assert [run.best_epoch for run in runs] == list(expected.values())


# Slices.


def test_slices_by_hand(tmp_path: Path) -> None:
    # Training is all but the last two: item 1 four times, item 2 once, item 3 never. User 3 is too short to test.
    histories = [[1, 1, 2, 9, 1], [1, 9, 2], [1, 2, 9, 9, 3], [2]]
    hashes = write_dataset(tmp_path / "data" / "toy", histories)
    write_run(tmp_path / "runs", "SASRec", "none", 1, np.array([0, 1, 30, -1]), **hashes)
    write_run(tmp_path / "runs", "SASRec", "finetune", 1, np.array([0, 0, 0, -1]), **hashes)
    table = compare_runs(tmp_path / "runs", tmp_path / "data", "toy").tables[0]
    trained, length = table.slicings
    assert (trained.labels, trained.users) == (("0", "1-5", "6-20", ">20"), (1, 2, 0, 0))
    none, tuned = (cells for _, _, cells in trained.rows)
    assert none[0].mean == 0 and none[1].mean == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert tuned[0].difference == 1 and tuned[0].low is None and not tuned[0].is_clear  # one user tells of no other
    assert tuned[1].difference == pytest.approx((1 - 1 / np.log2(3)) / 2)
    # Two users, 0 and 1 - 1 / log2(3) better: half their difference is the standard error, and t(1) is 12.706.
    assert tuned[1].high == pytest.approx(13.7062 * (1 - 1 / np.log2(3)) / 2, abs=1e-4) and tuned[1].one_seed
    assert none[2].mean is None and none[0].difference is None
    assert (length.labels, length.users) == (("1-3", ">3"), (1, 2))  # histories of 4, 2 and 4 events


def test_slices_of_a_sample_hold_its_users(tmp_path: Path) -> None:
    hashes = write_dataset(tmp_path / "data" / "toy", [[1, 1, 2, 9, 1], [1, 9, 2], [1, 2, 9, 9, 3], [2]])
    write_run(tmp_path / "runs", "SASRec", "none", 1, np.array([0, 1, 30, -1]), **hashes)
    asked = np.array([-1, 0, 5, -1])
    write_run(tmp_path / "runs", "Baselines", "ask", 1, asked, drawn_users=2, draw_seed=1, **hashes)
    tables = compare_runs(tmp_path / "runs", tmp_path / "data", "toy").tables
    sample, whole = sorted(tables, key=lambda table: table.users)
    assert (sample.users, sample.slicings[0].users, whole.slicings[0].users) == (2, (1, 1, 0, 0), (1, 2, 0, 0))


def test_length_bins_double_and_join_thin_tails() -> None:
    lengths = np.repeat([1, 5, 9, 20, 40], [1, 79, 80, 39, 1])
    assert length_bins(lengths).tolist() == [1, 8, 16]  # half a percent at either end joins the next: 1-7, 8-15, >15
    assert length_bins(np.full(10, 6)).tolist() == [4]  # no bin without users in front
    assert len(length_bins(2 ** np.arange(1, 12).repeat(10))) == 5


def test_slices_of_other_users_are_left_out_with_the_reason(tmp_path: Path) -> None:
    hashes = write_dataset(tmp_path / "data" / "toy", [[1, 2, 3]] * USERS)
    write_run(tmp_path / "runs", "SASRec", "none", 1, draw_ranks(0, 1.0), **hashes)  # leaves user 0 out
    table = compare_runs(tmp_path / "runs", tmp_path / "data", "toy").tables[0]
    assert table.slicings == () and "tested other users" in table.slices_note


# Reports.


def test_text_fits_and_says_what_it_shows(study: Comparison) -> None:
    text = format_text(study)
    assert max(map(len, text.splitlines())) <= 110
    for phrase in ("SASRec", "item-knn", "not applicable", "Holm over 6 tests", "user's history length", "1.5 GiB"):
        assert phrase in text
    assert "pretrain-seed42" in text.split("Not finished")[1]


def test_page_stands_alone_and_shows_every_group(study: Comparison) -> None:
    page = render_html(study)
    assert not re.search(r"https?://|//\w+\.\w+/|<script|<link|@import|url\(", page)
    for row in study.tables[0].groups:
        assert row.family in page and row.group in page
    assert "prefers-color-scheme: dark" in page and "<svg" in page and "pretrain-seed42" in page


def test_cards_hold_intervals_strips_stand_by_their_numbers_and_tables_scroll(study: Comparison) -> None:
    page = render_html(study)
    gain = study.tables[0].difference("SASRec", "finetune")
    assert gain is not None
    interval = f"95 % interval +{gain.low:.4f} to +{gain.high:.4f}".replace("+0.", "+.")
    card = page.split('<span class="who">SASRec</span>')[1].split("</div>")[0]
    assert interval in card and "<svg" in card
    assert page.count("<table>") == page.count('<div class="scroll"><table>') > 4
    # In a slice, the strip follows the number in the same line of the cell.
    assert re.search(r'<div class="pair">\s*<span>\.\d{4}<small>.*</small></span>\s*<svg', page)


def test_page_escapes_names(study: Comparison) -> None:
    assert "<b>bold</b>" not in render_html(replace(study, dataset="<b>bold</b>"))


def test_command_writes_the_files_and_their_numbers_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "runs")
    config = Config(dataset="toy", runs_dir=tmp_path / "runs", data_dir=tmp_path / "data")
    main(config)
    shown = capsys.readouterr().out
    folder = tmp_path / "runs" / "compare" / "toy"
    assert sorted(p.name for p in folder.iterdir()) == ["comparison.html", "comparison.json", "comparison.png"]
    assert str(folder / "comparison.html") in shown
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "comparison.json").read_text())
    tuned = next(r for r in record["tables"][0]["groups"] if (r["family"], r["group"]) == ("SASRec", "finetune"))
    assert f"{tuned['mean']['NDCG@10']:.4f}".removeprefix("0") in shown
    before = (folder / "comparison.json").read_bytes()
    main(config)  # the folder of the last comparison is no run; the same runs give the same bytes
    assert (folder / "comparison.json").read_bytes() == before
    assert str(tmp_path) not in before.decode()


def test_write_report_names_the_files(study: Comparison, tmp_path: Path) -> None:
    assert list(write_report(study, tmp_path)) == ["json", "png", "html"]
