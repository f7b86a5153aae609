"""The comparison's PNG: means with their seeds, and differences with their intervals, one row per group."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from seqrec.basics.formatting import number, percent
from seqrec.comparison.style import colour_of, describe_protocol
from seqrec.comparison.tables import Comparison, GroupResult, ResultTable

INK, FAINT, RULE, WARNING = "#22252b", "#6b7280", "#e5e7eb", "#b3401f"
ROW_INCHES = 0.34
DPI = 160


def draw_chart(comparison: Comparison) -> bytes:
    """Return a PNG with one row per group: the mean and its seeds on the left, the difference on the right."""
    heights = [_rows(table)[-1][1] * ROW_INCHES + 1.75 for table in comparison.tables]
    figure = Figure(figsize=(10.5, sum(heights)), layout="constrained", facecolor="white")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, (part, table) in enumerate(zip(parts, comparison.tables, strict=True), start=1):
        left, right = part.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.15, 1]})
        label = f" (protocol {place} of {len(heights)})" if len(heights) > 1 else ""
        # The empty lines keep room below the title for the protocol's sentence.
        title = f"{comparison.metric} on {comparison.dataset}{label}\n "
        part.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK, linespacing=1.5)
        under = 1 - 0.46 / heights[place - 1]
        part.text(0.0125, under, describe_protocol(table), fontsize=9, color=FAINT, va="center")
        _draw_means(left, table, comparison.metric)
        _draw_differences(right, table, comparison)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _rows(table: ResultTable) -> list[tuple[GroupResult, float]]:
    """Return each group with its height on the axis, a gap before every family but the first."""
    rows, height, family = [], -1.0, table.groups[0].family
    for group in table.groups:
        height += 1.0 if group.family == family else 1.8
        family = group.family
        rows.append((group, height))
    return rows


def _draw_means(axes: Axes, table: ResultTable, metric: str) -> None:
    marked = {(doubt.run.family, doubt.run.group, doubt.run.seed) for doubt in table.doubts}
    for group, height in _rows(table):
        colour = colour_of(group.group, table)
        seeds = group.by_seed[metric]
        axes.plot([min(seeds), max(seeds)], [height] * 2, color=colour, lw=2.5, alpha=0.35, solid_capstyle="round")
        axes.scatter(seeds, [height] * len(seeds), s=16, color=colour, alpha=0.55, lw=0, zorder=3)
        doubted = [value for seed, value in zip(group.seeds, seeds, strict=True) if (*group.key, seed) in marked]
        axes.scatter(doubted, [height] * len(doubted), s=34, marker="x", color=WARNING, lw=1.6, zorder=5)
        axes.scatter([group.mean[metric]], [height], s=72, color=colour, edgecolor="white", lw=1.2, zorder=4)
        axes.annotate(
            number(group.mean[metric]), (max(seeds), height), (9, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
    labels = [group.group for group, _ in _rows(table)]
    axes.set_yticks([height for _, height in _rows(table)], labels, fontsize=10, color=INK)
    for family in table.families:
        first = next(height for group, height in _rows(table) if group.family == family)
        axes.annotate(
            family, (0, first - 0.75), (-4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="center", fontsize=10.5, fontweight="bold", color=INK, annotation_clip=False,
        )  # fmt: skip
    axes.margins(x=0.14)
    axes.set_ylim(_rows(table)[-1][1] + 0.6, -1.1)
    note = "; cross: see the warnings" if table.doubts else ""
    _style(axes, f"{metric}: mean, and each seed{note}", sign=False)


def _draw_differences(axes: Axes, table: ResultTable, comparison: Comparison) -> None:
    axes.axvline(0, color=FAINT, lw=1)
    for group, height in _rows(table):
        difference = table.difference(group.family, group.group)
        if difference is None:
            text = "reference" if group.key == table.baseline_of(group.family) else "not applicable"
            axes.annotate(text, (0, height), (7, 0), textcoords="offset points", va="center", fontsize=8.5, color=FAINT)
            continue
        colour = colour_of(group.group, table)
        filled = colour if difference.is_clear else "white"
        axes.plot([difference.low, difference.high], [height] * 2, color=colour, lw=2.5, solid_capstyle="round")
        axes.scatter([difference.mean], [height], s=58, color=filled, edgecolor=colour, lw=1.8, zorder=4)
        one_seed = ", one seed" if difference.p is None else ""
        axes.annotate(
            f"{number(difference.mean, sign=True)}  {percent(difference.relative)}{one_seed}",
            (max(difference.high, 0), height), (9, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.margins(x=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if not table.differences:
        axes.set_xlim(-1, 1)
        axes.set_xticks([])
    _style(axes, f"Δ {comparison.metric} to {comparison.reference}, 95 % interval; hollow: no star", sign=True)
    axes.tick_params(labelleft=False)


def _style(axes: Axes, title: str, sign: bool) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=FAINT, pad=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x, sign=sign and abs(x) > 1e-9)))
    axes.tick_params(length=0, labelsize=9, colors=FAINT)
    axes.tick_params(axis="y", colors=INK)
    axes.grid(axis="x", color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
