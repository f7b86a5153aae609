"""Draw the learning curves of runs, finished or not, as a PNG.

python scripts/curves.py runs/SASRec/demo/none-seed1 runs/SASRec/demo/finetune-seed1
"""

import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.paths import ROOT
from seqrec.comparison.results import name_run


@dataclass(frozen=True, slots=True)
class Config:
    """Draw the learning curves of runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; of a run in stages, a stage's folder."""
    columns: tuple[str, ...] = ("train/loss", "valid/NDCG@10")
    """Columns of logs/metrics.csv, one panel each."""
    output: Path = ROOT / "runs" / "curves.png"
    """The picture."""
    by_time: bool = False
    """Minutes of training instead of epochs on the x axis."""

    def __post_init__(self) -> None:
        if not self.runs or not self.columns:
            raise UserError("give at least one run folder and one of --columns")


def read_curves(run: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Return a run's epochs (of a pretraining: rounds) in order, with the minutes that training had taken by then.

    Raises:
        MissingFileError: If the folder has no log.
        UserError: If the log is no table, or lacks a column of numbers.
    """
    path = run / "logs" / "metrics.csv"
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: give a run's folder, or of a run in stages one of its stages'")
    try:
        table = pl.read_csv(path, glob=False, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no table of comma-separated values ({error}): run the model again") from error
    needed = ("seconds", *columns)
    if missing := [column for column in needed if column not in table.columns]:
        raise UserError(f"{path} has no column {missing[0]}, it has {', '.join(table.columns)}")
    if texts := [column for column in needed if not table[column].dtype.is_numeric()]:
        raise UserError(f"{path}: the column {texts[0]} holds {table[texts[0]].dtype}, expected numbers")
    return table.with_columns(number=pl.int_range(1, pl.len() + 1), minutes=pl.col("seconds").cum_sum() / 60)


def draw_curves(curves: dict[str, pl.DataFrame], columns: tuple[str, ...], by_time: bool) -> bytes:
    """Return a PNG with one panel per column and one line per run."""
    figure = Figure(figsize=(max(7.2, 4.6 * len(columns)), 3.2), layout="constrained", facecolor="white")
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        for name, table in curves.items():
            axes.plot(table["minutes" if by_time else "number"], table[column], marker="o", ms=3, label=name)
        axes.set_title(column, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("minutes of training" if by_time else "epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=not by_time))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    if len(curves) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def main(config: Config) -> None:
    """Write the picture."""
    runs = {run.resolve(): read_curves(run, config.columns) for run in config.runs}
    short = {name_run(run) for run in runs}
    curves = {name_run(run) if len(short) == len(runs) else str(run): curve for run, curve in runs.items()}
    image = draw_curves(curves, config.columns, config.by_time)
    with write_atomically(config.output) as file:
        file.write(image)
    print(config.output)


if __name__ == "__main__":
    run_command(main, Config)
