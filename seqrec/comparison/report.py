"""A comparison as aligned text, as JSON, as a PNG and as one self-contained HTML page."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import (
    COLUMNS,
    MINUS,
    _shorten,
    align_rows,
    amount,
    duration,
    number,
    percent,
    probability,
    size,
)
from seqrec.comparison.chart import draw_chart
from seqrec.comparison.page import render_html
from seqrec.comparison.results import name_run
from seqrec.comparison.style import data_mark, describe_protocol
from seqrec.comparison.tables import SIGNIFICANT, Comparison, GroupResult, ResultTable


def write_report(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write comparison.json, comparison.png and comparison.html, each whole or not at all; return their paths."""
    paths = {kind: folder / f"comparison.{kind}" for kind in ("json", "png", "html")}
    page = render_html(comparison)
    image = draw_chart(comparison)
    write_json(paths["json"], as_record(comparison))
    for kind, content in (("png", image), ("html", page.encode())):
        with write_atomically(paths[kind]) as file:
            file.write(content)
    return paths


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Return every number of the comparison as JSON values, without dates or absolute paths."""
    return {
        "format": 3,
        "dataset": comparison.dataset,
        "metric": comparison.metric,
        "tables": [_table_record(table) for table in comparison.tables],
        "unfinished": list(comparison.unfinished),
        "left_out": list(comparison.left_out),
        "reference": comparison.reference,
    }


def _table_record(table: ResultTable) -> dict[str, Any]:
    return {
        "protocol": table.protocol,
        "users": table.users,
        "groups": [asdict(row) for row in table.groups],
        "differences": [
            asdict(d) | {"baseline": "/".join(d.baseline), "one_seed": d.p is None, "star": d.is_clear}
            for d in table.differences
        ],
        "slices": [
            {
                "title": cut.title,
                "labels": cut.labels,
                "users": cut.users,
                "rows": [
                    {"family": family, "group": group, "cells": [asdict(cell) for cell in cells]}
                    for family, group, cells in cut.rows
                ],
            }
            for cut in table.slicings
        ],
        "slices_note": table.slices_note,
        "warnings": [{"run": name_run(doubt.run.folder), "reason": doubt.reason} for doubt in table.doubts],
        "runs": [
            {
                "folder": name_run(run.folder),
                "seed": run.seed,
                "best_epoch": run.best_epoch,
                "epochs": run.epochs,
                "test": run.test,
                "cost": run.cost,
            }
            for run in table.runs
        ],
    }


def format_text(comparison: Comparison) -> str:
    """Return all tables as text of about `COLUMNS` columns."""
    parts = []
    for place, table in enumerate(comparison.tables, start=1):
        label = f" · protocol {place} of {len(comparison.tables)}" if len(comparison.tables) > 1 else ""
        protocol = textwrap.fill(f"{describe_protocol(table)} Data: {data_mark(table)}.", COLUMNS)
        parts.append(f"{comparison.dataset}{label}\n{protocol}")
        parts += [_main_text(table, comparison), *_doubts_text(table), _differences_text(table, comparison)]
        parts += _slices_text(table, comparison)
        parts.append(_cost_text(table))
    for title, names in (
        ("Left out, as --leave_out says", comparison.left_out),
        ("Not finished, hence not in any table", comparison.unfinished),
    ):
        if names:
            parts.append("\n".join([f"{title}:", *(f"  {name}" for name in names)]))
    return "\n\n".join(parts) + "\n"


def table_cells(table: ResultTable, comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the main table: a row for each group, its means, its difference."""
    rows = []
    for row in table.groups:
        means = [
            f"{number(row.mean[m])} " + (f"± {number(row.sd[m])}" if row.sd[m] is not None else " " * 7)
            for m in table.metrics
        ]
        seeds = str(len(row.seeds)) if len(row.seeds) > 1 else "one seed"
        rows.append([row.family, row.group, seeds, *means, _to_baseline(table, row)])
    return ["family", "start", "seeds", *table.metrics, f"Δ {comparison.metric}"], rows


def _main_text(table: ResultTable, comparison: Comparison) -> str:
    header, rows = table_cells(table, comparison)
    title = f"Mean ± sd over seeds; Δ to {comparison.reference}, * where Holm's p < {SIGNIFICANT} over users and seeds"
    return align_rows(title, header, rows)


def _doubts_text(table: ResultTable) -> list[str]:
    if not table.doubts:
        return []
    lines = [f"  {name_run(doubt.run.folder)}: {doubt.reason}" for doubt in table.doubts]
    return ["\n".join(["Warning. Look at these runs before you believe their group, or --leave_out them:", *lines])]


def _to_baseline(table: ResultTable, row: GroupResult) -> str:
    if row.key == table.baseline_of(row.family):
        return "reference"
    difference = table.difference(row.family, row.group)
    if difference is None:
        return "not applicable"
    return f"{number(difference.mean, sign=True)}{'*' if difference.is_clear else ' '}"


def _differences_text(table: ResultTable, comparison: Comparison) -> str:
    if not table.differences:
        return f"No differences: there is nothing to compare with {comparison.reference}."
    rows = [
        [
            d.family,
            f" {MINUS} ".join(map(_shorten, d.names)),
            number(d.mean, sign=True),
            percent(d.relative),
            f"[{number(d.low, sign=True)}, {number(d.high, sign=True)}]",
            number(d.user_error),
            number(d.seed_error),
            probability(d.p),
            probability(d.p_holm),
        ]
        for d in sorted(table.differences, key=lambda d: d.family)
    ]
    tests = sum(d.p is not None for d in table.differences)
    header = ["family", "difference", "Δ", "", "95 % interval", "users", "seeds", "p", "p (Holm)"]
    title = (
        f"Differences in {comparison.metric}. Intervals hold other users and other seeds; users, seeds: the standard "
        f"error of Δ from each. With one seed they hold users alone, and nothing is tested. Holm over {tests} tests"
    )
    title = textwrap.fill(title, COLUMNS)
    return align_rows(title, header, rows)


def _slices_text(table: ResultTable, comparison: Comparison) -> list[str]:
    if not table.slicings:
        return [table.slices_note[:1].upper() + table.slices_note[1:] + "."]
    parts = []
    for cut in table.slicings:
        rows = [["", "users", *(f"{n:,} {'':>7}" for n in cut.users)]]
        for family, group, cells in cut.rows:
            texts = []
            for cell in cells:
                gain = number(cell.difference, sign=True) if cell.difference is not None else ""
                texts.append(f"{number(cell.mean)} {gain:>6}{'*' if cell.is_clear else ' '}")
            rows.append([family, group, *texts])
        change = f"Δ to {comparison.reference}, * where its interval excludes 0 (uncorrected)"
        title = textwrap.fill(f"{comparison.metric} by {cut.title}; {change}", COLUMNS)
        parts.append(align_rows(title, ["family", "start", *(f"{label} {'':>7}" for label in cut.labels)], rows))
    return parts


def _cost_text(table: ResultTable) -> str:
    rows = [
        [
            row.family,
            row.group,
            duration(row.cost["train_seconds"]),
            duration(row.cost["test_seconds"]),
            size(row.cost["peak_memory_bytes"]),
            amount(row.cost["parameters"]),
            amount(row.cost["trainable_parameters"]),
            size(row.cost["item_vector_bytes"]),
            row.device,
        ]
        for row in table.groups
    ]
    header = ["family", "start", "training", "test", "peak memory", "parameters", "trained", "vectors", "device"]
    return align_rows("Cost, median over seeds", header, rows)
