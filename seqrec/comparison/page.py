"""Self-contained HTML pages in one style, light and dark; here that of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.ticker import MaxNLocator

from seqrec.basics import formatting
from seqrec.comparison import style
from seqrec.comparison.results import name_run
from seqrec.comparison.tables import Comparison, Difference, GroupResult, ResultTable, Slicing

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis: numbers to percent of a drawing's width."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> str:
        """Return the position of a number, as an SVG length."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first statement of the page on a family."""

    family: str
    best: GroupResult
    baseline: GroupResult | None
    difference: Difference | None


def render_html(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    own = (name_run, mean_scale, difference_scale, slice_scale, find_best)
    names = {function.__name__: function for function in own}
    return render_page(TEMPLATE, comparison=comparison, baseline=comparison.reference, **names)


def render_page(template: Path, **values: Any) -> str:
    """Return a page from a template that extends `page.html`, with the number formats of the project."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATE.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ways = (
        formatting.number, formatting.percent, formatting.probability, formatting.duration, formatting.size,
        formatting.amount, style.colour_of, style.describe_protocol, style.data_mark,
    )  # fmt: skip
    environment.globals |= {write.__name__: write for write in ways}
    environment.filters["number"] = formatting.number
    # As globals: macros do not see values of the template.
    environment.globals |= values
    return environment.get_template(template.name).render()


def mean_scale(table: ResultTable, metric: str) -> Scale:
    """Return the axis of the means, wide enough for every seed."""
    return _scale([value for row in table.groups for value in row.by_seed[metric]])


def difference_scale(table: ResultTable) -> Scale:
    """Return the axis of the differences, zero included."""
    return _scale([0.0, *(end for d in table.differences for end in (d.low, d.high))])


def slice_scale(cut: Slicing) -> Scale:
    """Return the axis of the differences in all slices of one cut, zero included."""
    cells = [cell for _, _, row in cut.rows for cell in row]
    return _scale([0.0, *(end for cell in cells for end in (cell.low, cell.high) if end is not None)])


def _scale(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or max(abs(high), 0.001) * 0.1
    low, high = low - margin, high + margin
    ticks = (float(tick) for tick in MaxNLocator(3).tick_values(low, high))
    return Scale(low, high, tuple(tick for tick in ticks if low < tick < high))


def find_best(table: ResultTable, metric: str) -> list[Finding]:
    """Return each family's best group with its difference to the family's baseline."""
    findings = []
    for family in table.families:
        rows = [row for row in table.groups if row.family == family]
        best = max(rows, key=lambda row: row.mean[metric])
        baseline = next((row for row in table.groups if row.key == table.baseline_of(family)), None)
        findings.append(Finding(family, best, baseline, table.difference(family, best.group)))
    return findings
