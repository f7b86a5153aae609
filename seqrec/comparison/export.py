"""A comparison's rows as a file for a spreadsheet, a notebook or a paper."""

from pathlib import Path
from typing import Any

import polars as pl
from tabulate import tabulate

from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.comparison.report import table_cells
from seqrec.comparison.style import describe_protocol
from seqrec.comparison.tables import Comparison, ResultTable

FORMS = (".csv", ".parquet", ".tex", ".md")
LATEX = {"±": "$\\pm$", "Δ": "$\\Delta$", "\u2212": "$-$", "*": "$^{*}$"}


def check_form(path: Path) -> None:
    """Check that a file's ending says how it is to be written.

    Raises:
        UserError: If it does not.
    """
    if path.suffix not in FORMS:
        raise UserError(f"--output must end in {', '.join(FORMS[:-1])} or {FORMS[-1]}, got {path}")


def write_table(comparison: Comparison, path: Path) -> None:
    """Write one row for each group: numbers in full as .csv and .parquet, as they are printed as .tex and .md.

    Raises:
        UserError: If the file's ending is another one.
    """
    check_form(path)
    with write_atomically(path) as file:
        if path.suffix in (".tex", ".md"):
            file.write(_render(comparison, latex=path.suffix == ".tex").encode())
            return
        rows = pl.DataFrame([row for table in comparison.tables for row in list_rows(table, comparison.metric)])
        rows.write_csv(file) if path.suffix == ".csv" else rows.write_parquet(file)


def list_rows(table: ResultTable, metric: str) -> list[dict[str, Any]]:
    """Return a row of numbers for each group; those of a difference are None where there is none."""
    protocol = {key: table.protocol[key] for key in ("split", "sample_size", "filter_seen")}
    protocol |= {"fresh_days": table.protocol.get("fresh_days"), "users": table.users}
    rows = []
    for group in table.groups:
        row: dict[str, Any] = protocol | {"family": group.family, "start": group.group, "seeds": len(group.seeds)}
        for name in table.metrics:
            row |= {name: group.mean[name], f"{name} sd": group.sd[name]}
        difference = table.difference(*group.key)
        row |= {"difference in": metric, "difference to": "/".join(table.baseline_of(group.family))}
        for name in ("mean", "low", "high", "p", "p_holm"):
            row[f"difference {name}"] = None if difference is None else getattr(difference, name)
        rows.append(row | group.cost | {"device": group.device})
    return rows


def _render(comparison: Comparison, latex: bool) -> str:
    parts = []
    for table in comparison.tables:
        header, rows = table_cells(table, comparison)
        align = ["left", "left", *["right"] * (len(header) - 2)]
        form = "latex_booktabs" if latex else "pipe"
        text = tabulate(rows, header, tablefmt=form, colalign=align, disable_numparse=True)
        if latex:
            for sign, command in LATEX.items():
                text = text.replace(sign, command)
        parts.append(f"{'% ' if latex else ''}{describe_protocol(table)}\n\n{text}\n")
    return "\n".join(parts)
