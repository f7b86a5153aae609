"""Quality against cost: the choices that no other beats in both."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seqrec.basics.formatting import number
from seqrec.comparison.chart import DPI, FAINT, INK
from seqrec.comparison.style import COLOURS, OTHER_COLOURS


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
    figure = Figure(figsize=(8.4, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    families = sorted({point.family for point in points})
    colours = [COLOURS["longformer"], COLOURS["pretrain"], COLOURS["finetune"], *OTHER_COLOURS, COLOURS["none"]]
    for place, family in enumerate(families):
        own = [point for point in points if point.family == family]
        where = [point.cost for point in own], [point.quality for point in own]
        axes.scatter(
            *where, s=44, color=colours[place % len(colours)], label=family, zorder=3, edgecolor="white", lw=0.8
        )
    best = frontier(points)
    steps = [point.cost for point in best], [point.quality for point in best]
    axes.step(*steps, where="post", color=FAINT, lw=1.2, zorder=2)
    for point in best:
        axes.annotate(
            point.name, (point.cost, point.quality), (5, 5), textcoords="offset points", fontsize=8.5, color=INK
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(cost, fontsize=9, color=FAINT)
    axes.set_ylabel(quality, fontsize=9, color=FAINT)
    axes.tick_params(labelsize=9, colors=FAINT)
    axes.margins(x=0.16, y=0.12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
