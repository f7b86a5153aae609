"""Compare a dataset's finished runs: text to the screen, and a JSON, a PNG and an HTML page.

python scripts/compare.py --dataset demo
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from seqrec.basics.command import run_command
from seqrec.basics.paths import ROOT
from seqrec.comparison.export import check_form, write_table
from seqrec.comparison.report import format_text, write_report
from seqrec.comparison.results import Seen
from seqrec.comparison.tables import compare_runs


@dataclass(frozen=True, slots=True)
class Config:
    """Compare a dataset's finished runs."""

    dataset: str
    """Dataset, the name of a folder of data_dir."""
    runs_dir: Path = ROOT / "runs"
    """Folder of the runs, <family>/<dataset>/<run name>/."""
    data_dir: Path = ROOT / "data"
    """Folder of the dataset, for the slices and for checking that the runs belong to it."""
    output_dir: Path | None = None
    """Folder of the three files; <runs_dir>/compare/<dataset> if not given."""
    output: Path | None = None
    """Write the rows to this file, too: .csv and .parquet hold numbers in full, .tex and .md the table as printed."""
    metric: str = "NDCG@10"
    """Metric of the differences and the slices: NDCG@k, Recall@k or MRR."""
    families: tuple[str, ...] = ()
    """Families to show; all if not given."""
    groups: tuple[str, ...] = ()
    """Groups to show (none, longformer, pretrain, finetune or a run name without its seed); all if not given."""
    reference: str | None = None
    """Group that all others are compared with, across families, as FAMILY/GROUP; by default `none` of each family."""
    seen: Seen = "own"
    """What users have had: kept among the candidates, left_out, or as each run's flags said (own). Every run that ranks
    all items is tested in both ways."""
    leave_out: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run to leave out, by its name as printed (family/dataset/run name); give the flag once for each."""

    def __post_init__(self) -> None:
        if self.output is not None:
            check_form(self.output)


def main(config: Config) -> None:
    """Print the tables and write the files."""
    comparison = compare_runs(
        config.runs_dir,
        config.data_dir,
        config.dataset,
        config.metric,
        config.families,
        config.groups,
        config.leave_out,
        config.reference,
        config.seen,
    )
    folder = config.output_dir or config.runs_dir / "compare" / config.dataset
    print(format_text(comparison))
    for kind, path in write_report(comparison, folder).items():
        print(f"{kind:<5} {path}")
    if config.output is not None:
        write_table(comparison, config.output)
        print(f"{config.output.suffix[1:]:<5} {config.output}")


if __name__ == "__main__":
    run_command(main, Config)
