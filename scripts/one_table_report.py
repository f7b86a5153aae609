"""The tables and pictures that scripts/one_table.py makes of its runs."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from scripts.one_table_plan import Plan, Row
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import DASH, align, amount, duration, number, size
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import progress
from seqrec.comparison.frontier import Point, draw_frontier
from seqrec.comparison.report import write_report
from seqrec.comparison.tables import Comparison, GroupResult, ResultTable, compare_runs

METRIC = "NDCG@10"
LEAST = {"all seconds": 1.0, "milliseconds": 0.1}
REQUESTS = 30
"""Requests of one user each that are timed."""


def report(
    plan: Plan, folder: Path, data_dir: Path, seconds: dict[str, float], reference: str, notes: list[str]
) -> str:
    """Write the comparison's pages, the table and the pictures; return the table and where all lies.

    Args:
        plan: What was run.
        folder: Of the runs, and of what is written.
        data_dir: Of the datasets.
        seconds: Of each command.
        reference: The row that others are compared with, family/name.
        notes: What stands below the table.
    """
    both = {
        seen: compare_runs(folder / "runs", data_dir, plan.dataset, METRIC, reference=reference, seen=seen)
        for seen in ("kept", "left_out")
    }
    for seen, comparison in both.items():
        write_report(comparison, folder / seen)
    milliseconds = time_requests(plan, folder)
    records = [
        describe(row, plan, both, seconds, milliseconds) for row in plan.rows if find_row(both["kept"], row) is not None
    ]
    table = pl.DataFrame(records)
    with write_atomically(folder / "one-table.csv") as file:
        table.write_csv(file)
    header, cells = shown(records)
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *cells])
    with write_atomically(folder / "one-table.md") as file:
        file.write("\n\n".join([markdown, *notes, ""]).encode())
    for name, cost, label in (
        ("training", "all seconds", "seconds of training, at least 1, the language model's among them, one seed"),
        ("serving", "milliseconds", "milliseconds to answer one user"),
    ):
        # On a logarithmic axis what takes nothing stands at the least that is told apart.
        known = [record for record in records if record[cost] is not None and record["left out"] is not None]
        points = [Point(r["row"], r["family"], max(r[cost], LEAST[cost]), r["left out"]) for r in known]
        with write_atomically(folder / f"{name}.png") as file:
            file.write(
                draw_frontier(points, f"{METRIC} on {plan.dataset}", label, f"{METRIC}, without what users have")
            )
    made = ", ".join(("one-table.csv", "one-table.md", "training.png", "serving.png", "kept/", "left_out/"))
    return f"{align(header, cells, names=2)}\n{folder}: {made}"


def find_row(comparison: Comparison, row: Row) -> tuple[ResultTable, GroupResult] | None:
    """Return a row's group and the table that it stands in."""
    for table in comparison.tables:
        for group in table.groups:
            if group.key == (row.family, row.name):
                return table, group
    return None


def describe(
    row: Row,
    plan: Plan,
    both: dict[str, Comparison],
    seconds: dict[str, float],
    milliseconds: dict[str, float],
) -> dict[str, Any]:
    """Return what is known of a row, numbers in full."""
    kept, left_out = find_row(both["kept"], row), find_row(both["left_out"], row)
    assert kept is not None
    table, group = kept
    difference = table.difference(*group.key)
    trained = group.cost.get("train_seconds") or 0.0
    language = sum(seconds.get(name, 0.0) for needed in needed_by(row, plan) for name in (needed, f"{needed}-seed1"))
    record: dict[str, Any] = {"row": row.name, "family": row.family, "seeds": len(group.seeds)}
    record |= {METRIC: group.mean[METRIC], "sd": group.sd[METRIC], "Recall@10": group.mean["Recall@10"]}
    for name in ("mean", "low", "high", "p_holm"):
        record[f"difference {name}"] = None if difference is None else getattr(difference, name)
    record["clear"] = difference is not None and difference.is_clear
    record["left out"] = None if left_out is None else left_out[1].mean[METRIC]
    record |= rare(table, group)
    record |= {"training seconds": trained, "language model's seconds": language, "all seconds": trained + language}
    record |= {"milliseconds": milliseconds.get(row.name), "vector bytes": group.cost.get("item_vector_bytes")}
    record |= {"peak bytes": group.cost.get("peak_memory_bytes"), "trained": group.cost.get("trainable_parameters")}
    return record | {"new item": row.new}


def needed_by(row: Row, plan: Plan) -> set[str]:
    """Return the names of all rows that one rests on."""
    rows = {other.name: other for other in plan.rows}
    found = set(row.needs)
    for name in row.needs:
        found |= needed_by(rows[name], plan)
    return found


def rare(table: ResultTable, group: GroupResult) -> dict[str, float | None]:
    """Return the metric on targets by how often they were seen in training, the rarest two kinds."""
    for slicing in table.slicings[:1]:
        for family, name, cells in slicing.rows:
            if (family, name) == group.key:
                return {f"seen {label}": cell.mean for label, cell in zip(slicing.labels[:2], cells, strict=False)}
    return {}


def time_requests(plan: Plan, folder: Path) -> dict[str, float]:
    """Return the milliseconds in which each row's first run answers one user, the median; kept in serving.json."""
    from seqrec.serving.answers import Query
    from seqrec.serving.run_model import Run

    file = folder / "serving.json"
    found: dict[str, float] = read_json_object(file, "delete it") if file.is_file() else {}
    for row in progress(plan.rows, desc="timing requests", unit="row"):
        runs = sorted((folder / "runs" / row.family / plan.dataset).glob(f"{row.name}*/metrics.json"))
        if row.name in found or not runs or not (runs[0].parent / "checkpoints").is_dir():
            continue  # what trains nothing keeps nothing to be served
        model, spent = Run(runs[0].parent), []
        draw = np.random.default_rng(0)
        for number_of_request in range(REQUESTS + 5):
            history = draw.integers(1, len(model.catalogue) + 1, 10)
            start = time.perf_counter()
            model.answer([Query(history, 10, history)])
            if number_of_request >= 5:
                spent.append(time.perf_counter() - start)
        found[row.name] = round(1000 * median(spent), 2)
        write_json(file, found)
    return found


def shown(records: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the table."""
    slices = [name for name in records[0] if name.startswith("seen ")]
    header = ["row", "family", METRIC, "Recall@10", "Δ [95 % interval]", "left out", *slices]
    header += ["training", "language model", "answer", "memory", "trained", "a new item needs"]
    cells = []
    for record in records:
        deviation = "" if record["sd"] is None else f" ± {number(record['sd'])}"
        low, middle, high = (record[f"difference {name}"] for name in ("low", "mean", "high"))
        star = "*" if record["clear"] else ""
        change = "" if middle is None else f"{number(middle, True)}{star} [{number(low)}, {number(high)}]"
        line = [record["row"], record["family"], f"{number(record[METRIC])}{deviation}", number(record["Recall@10"])]
        line += [change, number(record["left out"]), *(number(record[name]) for name in slices)]
        line += [duration(record["training seconds"]), duration(record["language model's seconds"])]
        answer = record["milliseconds"]
        line += [DASH if answer is None else f"{answer:.1f} ms", size(record["peak bytes"]), amount(record["trained"])]
        cells.append([*line, record["new item"]])
    return header, cells
