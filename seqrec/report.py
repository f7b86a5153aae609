"""A comparison as aligned text, as JSON, as a PNG and as one self-contained HTML page."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqrec.chart import draw_chart
from seqrec.comparison import BASELINE, Comparison, Group, Table
from seqrec.files import write_atomically, write_json
from seqrec.formatting import (
    MINUS,
    SIGNIFICANT,
    amount,
    data_mark,
    describe_protocol,
    duration,
    is_clear,
    is_clear_cell,
    name_run,
    number,
    percent,
    probability,
    size,
)
from seqrec.page import render_html

COLUMNS = 110
_NAME_WIDTH = 14


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
        "format": 1,
        "dataset": comparison.dataset,
        "metric": comparison.metric,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "tables": [_table_record(table) for table in comparison.tables],
        "unfinished": [name_run(folder) for folder in comparison.unfinished],
    }


def _table_record(table: Table) -> dict[str, Any]:
    return {
        "protocol": table.protocol,
        "users": table.users,
        "groups": [asdict(row) for row in table.groups],
        "differences": [asdict(difference) for difference in table.differences],
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
        parts += [_main_text(table, comparison), _differences_text(table, comparison)]
        parts += _slices_text(table, comparison)
        parts.append(_cost_text(table))
    if comparison.unfinished:
        names = "\n".join(f"  {name_run(folder)}" for folder in comparison.unfinished)
        parts.append(f"Not finished, hence not in any table:\n{names}")
    return "\n\n".join(parts) + "\n"


def _main_text(table: Table, comparison: Comparison) -> str:
    rows = []
    for row in table.groups:
        means = [f"{number(row.mean[m])} ± {number(row.sd[m])}" for m in table.metrics]
        rows.append([row.family, row.group, str(len(row.seeds)), *means, _to_baseline(table, row)])
    header = ["family", "start", "seeds", *table.metrics, f"Δ {comparison.metric}"]
    return align_rows(f"Mean ± sd over seeds; Δ to {BASELINE}, * where Holm's p < {SIGNIFICANT}", header, rows)


def _to_baseline(table: Table, row: Group) -> str:
    if row.group == BASELINE:
        return ""
    difference = table.difference(row.family, row.group)
    if difference is None:
        return f'no "{BASELINE}" run'
    return f"{number(difference.mean, sign=True)}{'*' if is_clear(difference) else ' '}"


def _differences_text(table: Table, comparison: Comparison) -> str:
    if not table.differences:
        return "No differences: no family has two groups that are compared."
    rows = [
        [
            d.family,
            f"{_shorten(d.group)} {MINUS} {d.baseline}",
            number(d.mean, sign=True),
            percent(d.relative),
            f"[{number(d.low, sign=True)}, {number(d.high, sign=True)}]",
            number(d.seed_error),
            probability(d.p),
            probability(d.p_holm),
        ]
        for d in sorted(table.differences, key=lambda d: d.family)
    ]
    header = ["family", "difference", "Δ", "", "95 % interval", "seeds", "p", "p (Holm)"]
    floor = 2 / (comparison.resamples + 1)
    title = (
        f"Differences in {comparison.metric}: paired bootstrap over users ({comparison.resamples:,} resamples, "
        f"p ≥ {floor:.1g}),\nHolm over {len(rows)} tests; seeds = standard error of Δ from the seeds alone"
    )
    return align_rows(title, header, rows)


def _slices_text(table: Table, comparison: Comparison) -> list[str]:
    if not table.slicings:
        return [table.slices_note[:1].upper() + table.slices_note[1:] + "."]
    parts = []
    for cut in table.slicings:
        rows = [["", "users", *(f"{n:,} {'':>7}" for n in cut.users)]]
        for family, group, cells in cut.rows:
            texts = []
            for cell in cells:
                change = number(cell.difference, sign=True) if cell.difference is not None else ""
                texts.append(f"{number(cell.mean)} {change:>6}{'*' if is_clear_cell(cell) else ' '}")
            rows.append([family, group, *texts])
        title = f"{comparison.metric} by {cut.title}; Δ to {BASELINE}, * where its interval excludes 0 (uncorrected)"
        parts.append(align_rows(title, ["family", "start", *(f"{label} {'':>7}" for label in cut.labels)], rows))
    return parts


def _cost_text(table: Table) -> str:
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


def align_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a titled table; the first two columns are names, the rest numbers set to the right.

    A family is named in its first row only.
    """
    shown, last = [], ""
    for family, name, *rest in rows:
        shown.append(["" if family == last else _shorten(family), _shorten(name, 2 * _NAME_WIDTH), *rest])
        last = family
    widths = [max(len(row[i]) for row in [header, *shown]) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in [header, *shown]
    ]
    return "\n".join([title, "─" * min(COLUMNS, max(map(len, lines))), *(line.rstrip() for line in lines)])


def _shorten(name: str, width: int = _NAME_WIDTH) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
