"""Pictures of choices: quality against cost, with those that no other beats in both, and gains along an axis."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seqrec.basics.formatting import number
from seqrec.comparison.chart import DPI, FAINT, INK
from seqrec.comparison.style import COLOURS, OTHER_COLOURS

MARKS = (COLOURS["longformer"], COLOURS["pretrain"], COLOURS["finetune"], *OTHER_COLOURS, COLOURS["none"])
"""Colours of families or lines, in turn."""
Gain = tuple[float, float, float]
"""A mean, and the two ends of its interval."""


@dataclass(frozen=True, slots=True)
class Point:
    """A choice."""

    name: str
    family: str
    cost: float
    """Greater than 0."""
    quality: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that none beats: as cheap and better, or as good and cheaper; the cheapest first."""
    best, found = float("-inf"), []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if point.quality > best:
            best = point.quality
            found.append(point)
    return found


def draw_frontier(points: Sequence[Point], title: str, cost: str, quality: str) -> bytes:
    """Return a PNG: every point, a colour for each family, the frontier as steps and its points by name.

    Args:
        points: What to draw, at least one.
        title: Of the picture.
        cost: What the horizontal axis, logarithmic, shows.
        quality: What the vertical axis shows.
    """
    figure, axes = _start(title)
    families = sorted({point.family for point in points})
    for place, family in enumerate(families):
        own = [point for point in points if point.family == family]
        where = [point.cost for point in own], [point.quality for point in own]
        axes.scatter(*where, s=44, color=MARKS[place % len(MARKS)], label=family, zorder=3, edgecolor="white", lw=0.8)
    best = frontier(points)
    steps = [point.cost for point in best], [point.quality for point in best]
    axes.step(*steps, where="post", color=FAINT, lw=1.2, zorder=2)
    for point in best:
        axes.annotate(
            point.name, (point.cost, point.quality), (5, 5), textcoords="offset points", fontsize=8.5, color=INK
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.16, y=0.12)
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    return _finish(figure, axes, cost, quality)


def draw_profiles(
    profiles: Mapping[str, Sequence[Gain | None]], labels: Sequence[str], across: str, gain: str
) -> bytes:
    """Return a PNG: a line for each choice, its gain and the interval at each place of the horizontal axis.

    Args:
        profiles: Of each choice the mean gain and the two ends of its interval, for each label, None where unknown.
        labels: Of the places.
        across: What the horizontal axis shows.
        gain: What the vertical axis shows.
    """
    figure, axes = _start("")
    axes.axhline(0, color=FAINT, lw=1)
    for place, (name, gains) in enumerate(profiles.items()):
        known = [(at, *each) for at, each in enumerate(gains) if each is not None]
        colour, shift = MARKS[place % len(MARKS)], 0.07 * (place - (len(profiles) - 1) / 2)
        where = [at + shift for at, *_ in known]
        means = [mean for _, mean, _, _ in known]
        axes.plot(where, means, "o-", color=colour, lw=1.6, ms=5, label=name, zorder=3)
        axes.vlines(where, [low for *_, low, _ in known], [high for *_, high in known], color=colour, alpha=0.6, lw=1.4)
    axes.set_xticks(range(len(labels)), labels)
    axes.legend(fontsize=8.5, frameon=False)
    return _finish(figure, axes, across, gain)


def _start(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    return figure, axes


def _finish(figure: Figure, axes: Axes, across: str, upward: str) -> bytes:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel(across, fontsize=9, color=FAINT)
    axes.set_ylabel(upward, fontsize=9, color=FAINT)
    axes.tick_params(labelsize=9, colors=FAINT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
