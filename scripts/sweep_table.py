"""Show a sweep's arms as a table, and as a picture: the test score of each arm's best trial, chosen on validation.

python scripts/sweep_table.py runs/sweeps/study/best.json
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.formatting import align, number
from seqrec.basics.opening import read_json_object


@dataclass(frozen=True, slots=True)
class Config:
    """Show the arms of sweeps as a table and a picture."""

    sweeps: tyro.conf.Positional[tuple[Path, ...]]
    """best.json of one sweep, or of several with the same arms and columns."""
    rows: tuple[str, ...] = ()
    """Names of the arms, in their order; their flags if not given."""
    columns: tuple[str, ...] = ()
    """Names of the columns, in their order; their flags if not given."""
    titles: tuple[str, ...] = ()
    """Names of the sweeps; their folders' if not given."""
    output: Path | None = None
    """The picture, a .png; beside the first best.json if not given."""


def read_scores(path: Path) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a sweep and its (2, rows, columns) scores, of validation and of the test.

    Raises:
        UserError: If the file is not a sweep's.
    """
    sweep = read_json_object(path, "give the best.json of a sweep")
    try:
        metric, shape = sweep["metric"], (len(sweep["rows"]), len(sweep["columns"]))
        both = [[arm[key] for arm in sweep["arms"]] for key in (metric, f"test {metric}")]
        return sweep, np.array(both, dtype=np.float64).reshape(2, *shape)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no best.json of scripts/sweep.py ({error!r})") from error


def name_all(given: tuple[str, ...], flags: list[str], option: str) -> list[str]:
    """Return the names of rows or columns.

    Raises:
        UserError: If there are more or fewer than those.
    """
    if given and len(given) != len(flags):
        raise UserError(f"{option} gives {len(given)} names for {len(flags)}: {flags}")
    return list(given) or [text or "all" for text in flags]


def draw_scores(scores: list[NDArray[np.float64]], rows: list[str], columns: list[str], titles: list[str]) -> bytes:
    """Return a PNG with a panel for each sweep: a cell's shade is its (rows, columns) test score."""
    size = (1.2 + 1.25 * len(columns) * len(scores), 1.0 + 0.34 * len(rows))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for panel, (axes, table) in enumerate(zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True)):
        axes.imshow(table, cmap="viridis", aspect="auto")
        middle = (table.min() + table.max()) / 2
        for (row, column), score in np.ndenumerate(table):
            dark = score < middle
            axes.text(column, row, number(score), ha="center", va="center", color="white" if dark else "black", size=9)
        axes.set_xticks(range(len(columns)), columns, fontsize=9)
        axes.set_yticks(range(len(rows)), rows if panel == 0 else [""] * len(rows), fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(titles[panel], loc="left", fontsize=11, fontweight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def main(config: Config) -> None:
    """Print the tables and write the picture."""
    if not config.sweeps:
        raise UserError("give best.json of at least one sweep")
    sweeps, scores = zip(*map(read_scores, config.sweeps), strict=True)
    first = sweeps[0]
    if any(
        (s["rows"], s["columns"], s["metric"]) != (first["rows"], first["columns"], first["metric"]) for s in sweeps
    ):
        raise UserError("the sweeps have other arms, columns or metrics: show them one by one")
    rows = name_all(config.rows, first["rows"], "--rows")
    columns = name_all(config.columns, first["columns"], "--columns")
    titles = name_all(config.titles, [path.resolve().parent.name for path in config.sweeps], "--titles")
    for title, (validation, test) in zip(titles, scores, strict=True):
        print(f"{title}, test {first['metric']} (validation)")
        cells = [
            [name, *(f"{number(t)} ({number(v)})" for v, t in zip(valid_row, test_row, strict=True))]
            for name, valid_row, test_row in zip(rows, validation, test, strict=True)
        ]
        print(align(["", *columns], cells))
    output = config.output or config.sweeps[0].with_name("best.png")
    with write_atomically(output) as file:
        file.write(draw_scores([test for _, test in scores], rows, columns, titles))
    print(output)


if __name__ == "__main__":
    run_command(main, Config)
