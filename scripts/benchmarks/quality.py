"""How long each side of a benchmark takes to a quality: validation NDCG@10 over seconds, as a table and a picture."""

import io
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seqrec.basics.formatting import number
from seqrec.comparison.style import COLOURS, OTHER_COLOURS


def time_to_best(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Return the peer's best validation score, and the seconds that it and we took to reach it (ours None if never).

    Args:
        ours: `epoch_seconds` and `valid`, the score after each epoch.
        peer: The same of the peer.
    """
    best = max(peer["valid"])
    peer_seconds, our_seconds = (_seconds_to(side, best) for side in (peer, ours))
    assert peer_seconds is not None
    ratio = peer_seconds / our_seconds if our_seconds else None
    return {"best": best, "ours_best": max(ours["valid"]), "peer": peer_seconds, "ours": our_seconds, "ratio": ratio}


def _seconds_to(side: dict[str, Any], level: float) -> float | None:
    clock = accumulate(side["epoch_seconds"])
    return next((at for at, score in zip(clock, side["valid"], strict=True) if score >= level), None)


def print_quality(reached: dict[str, dict[str, Any]]) -> None:
    """Print one line per peer."""
    print(f"{'to the best validation NDCG@10 of':<34}{'ours':>12}{'peer':>12}{'ratio':>9}")
    for peer, found in reached.items():
        never = f"never ({number(found['ours_best'])})"
        ours, ratio = (never, "") if found["ours"] is None else (f"{found['ours']:.3g} s", f"{found['ratio']:.1f}")
        print(f"{peer + ', ' + number(found['best']):<34}{ours:>12}{found['peer']:>10.3g} s{ratio:>9}")


def draw_quality(sides: dict[str, dict[str, Any]], title: str) -> bytes:
    """Return a PNG: the best NDCG@10 of validation so far over seconds of training, a line per side."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    colours = (COLOURS["longformer"], COLOURS["pretrain"], *OTHER_COLOURS)
    for (name, side), colour in zip(sides.items(), colours, strict=False):
        seconds, best = list(accumulate(side["epoch_seconds"])), list(accumulate(side["valid"], max))
        axes.step(seconds, best, where="post", color=colour, lw=2)
        axes.scatter(seconds, side["valid"], s=9, color=colour, alpha=0.5, lw=0)
        axes.annotate(name, (seconds[-1], best[-1]), (6, 0), textcoords="offset points", va="center", color=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("seconds of training, with a validation after each epoch", fontsize=9)
    axes.set_ylabel("best NDCG@10 of validation so far", fontsize=9)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()
