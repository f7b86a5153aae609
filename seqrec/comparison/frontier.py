"""Pictures of choices: quality against cost, with those that no other beats in both, and gains along an axis."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from seqrec.basics.formatting import number
from seqrec.comparison.chart import DPI, FAINT, INK
from seqrec.comparison.style import COLOURS, OTHER_COLOURS

MARKS = (COLOURS["longformer"], COLOURS["pretrain"], COLOURS["finetune"], *OTHER_COLOURS, COLOURS["none"])
"""Colours of families or lines, in turn."""
LEAST_DRAWN = 0.4
"""Share of the best quality below which points are listed in a line and not drawn."""
PLACES = [
    (side * (6 + abs(up) * slant), up, "left" if side > 0 else "right")
    for up in (0, 10, -10, 18, -18, 27, -27, 36, -36, 45, -45, 56, -56)
    for slant in ((1 / 3, 1, 2) if abs(up) > 8 else (0,))
    for side in (1, -1)
]
"""Offsets of a name from its point, in typographic points, and its alignment, in the order they are tried."""
OVER_NAME = 20
"""What a name over a point or another name costs, in steps of a line over one."""
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
    """Return a PNG: named points, one colour per family; the frontier is a step line, its names are black.

    Args:
        points: Points, at least one; those below `LEAST_DRAWN` are listed in a line.
        title: Of the picture.
        cost: What the horizontal axis, logarithmic, shows.
        quality: What the vertical axis shows.
    """
    figure, axes = _start(title)
    families = sorted({point.family for point in points})
    best = frontier(points)
    drawn = [point for point in points if point.quality >= LEAST_DRAWN * best[-1].quality]
    for place, family in enumerate(families):
        own = [point for point in drawn if point.family == family]
        where = [point.cost for point in own], [point.quality for point in own]
        axes.scatter(*where, s=44, color=MARKS[place % len(MARKS)], label=family, zorder=3, edgecolor="white", lw=0.8)
    on_line = [point for point in best if point in drawn]
    steps = [point.cost for point in on_line], [point.quality for point in on_line]
    axes.step(*steps, where="post", color=FAINT, lw=1.2, zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.16, y=0.2)
    figure.legend(fontsize=8.5, frameon=False, loc="outside lower center", ncols=len(families))
    if below := [f"{point.name} {number(point.quality)}" for point in points if point not in drawn]:
        told = f"below: {', '.join(below)}"
        axes.annotate(told, (0.01, 0.02), xycoords="axes fraction", fontsize=8, color=FAINT)
    _dress(axes, cost, quality)
    _write_names(figure, axes, [*on_line, *(point for point in drawn if point not in on_line)], len(on_line))
    return _as_png(figure)


def _write_names(figure: Figure, axes: Axes, points: Sequence[Point], in_ink: int) -> None:
    """Write the points' names, the first `in_ink` in black, where they and the lines to them cross the least."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # lays the axes out
    centres = axes.transData.transform([(point.cost, point.quality) for point in points])
    taken: list[BboxBase] = [Bbox.from_bounds(x - 8, y - 6, 16, 12) for x, y in centres]
    for place, (point, centre) in enumerate(zip(points, centres, strict=True)):
        others = [*taken[:place], *taken[place + 1 :]]
        found: list[tuple[float, Annotation, list[BboxBase]]] = []
        for right, up, aligned in [*([(4.0, 8, "left")] if place < in_ink else []), *PLACES]:
            has_line = abs(up) > 8
            name = Annotation(
                point.name, (point.cost, point.quality), (right, up), textcoords="offset points", ha=aligned,
                va="center", fontsize=8, color=INK if place < in_ink else FAINT,
                arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkB": 3} if has_line else None,
            )  # fmt: skip
            axes.add_artist(name)
            name.update_positions(renderer)
            box = Text.get_window_extent(name, renderer)  # without the line to the point
            name.remove()
            if not (axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)):
                continue
            line = _along(centre, box) if has_line else []
            crossed = OVER_NAME * box.count_overlaps(others) + sum(part.count_overlaps(others) for part in line)
            found.append((crossed, name, [box, *line]))
            if not crossed:
                break
        if found:  # a name that is wider than the picture has no place
            _, name, boxes = min(found, key=lambda each: each[0])
            axes.add_artist(name)
            taken += boxes


def _along(start: NDArray[np.float64], box: BboxBase) -> list[BboxBase]:
    """Return small boxes along the line from the edge of a point to a name."""
    way = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) - start
    steps = (start + way * share for share in np.arange(12, np.hypot(*way), 3) / np.hypot(*way))
    return [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in steps if not box.contains(x, y)]


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
    _dress(axes, across, gain)
    return _as_png(figure)


def _start(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    return figure, axes


def _dress(axes: Axes, across: str, upward: str) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel(across, fontsize=9, color=FAINT)
    axes.set_ylabel(upward, fontsize=9, color=FAINT)
    axes.tick_params(labelsize=9, colors=FAINT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _as_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
