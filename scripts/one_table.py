"""Make one table of every way of using a language model: equal trials, chosen on validation, three seeds, and the cost.

python scripts/one_table.py --datasets amazon-scientific --plan
python scripts/one_table.py --datasets amazon-scientific --budget 6
python scripts/one_table.py --datasets demo --short

The rows are those of scripts/one_table.toml. A row's flags are searched by scripts/sweep.py, every arm with the same
number of trials; the best ones on validation are trained with several seeds and tested. The same command goes on after
a kill, and adds what a larger budget affords.
"""

import itertools
import logging
import shlex
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_json
from seqrec.basics.formatting import align, duration
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress

log = logging.getLogger(__name__)
ROWS = Path(__file__).with_suffix(".toml")
REFERENCE = "SASRec/sasrec-none"
"""The row that all others are compared with."""


@dataclass(frozen=True, slots=True)
class Config:
    """Make one table of every way of using a language model."""

    datasets: tuple[str, ...]
    """Prepared datasets."""
    rows: tuple[str, ...] = ()
    """Rows by name; what they need is made, too. All if not given."""
    trials: int = 10
    """Trials of every row that has a search."""
    seeds: int = 3
    """Seeds of every row that draws anything."""
    budget: float | None = None
    """Hours to spend here: fewer trials, then fewer seeds, then without the dearest rows, never by other rules."""
    plan: bool = False
    """Print what is to be done and what it takes, and stop."""
    short: bool = False
    """Try it out: a trial, a seed and an epoch each."""
    output_dir: Path = ROOT / "runs" / "one-table"
    """Folder of everything that is made."""
    data_dir: Path = ROOT / "data"
    """Folder of the datasets."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "trials", "seeds")
        require_above(0, self, "budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A way of recommending; scripts/one_table.toml says what each field is."""

    name: str
    family: str
    flags: str
    why: str
    script: str | None = None
    search: str | None = None
    seeds: int | None = None
    needs: tuple[str, ...] = ()
    new: str = ""
    on: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    short: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run on one dataset."""

    dataset: str
    rows: tuple[Row, ...]
    left_out: tuple[Row, ...]
    """Rows that the budget does not afford."""
    trials: int
    seeds: int
    pace: float
    """How many times as long this machine takes as the reference."""
    measured: dict[str, float] = field(default_factory=dict)
    """Minutes of a run of each row that has run here."""

    def seeds_of(self, row: Row) -> int:
        """Return the number of a row's seeds."""
        return min(row.seeds or self.seeds, self.seeds)

    def minutes(self, row: Row) -> float | None:
        """Return what a row takes here, or None where nobody has measured it."""
        there = row.minutes.get(self.dataset)
        one = self.measured.get(row.name, None if there is None else there * self.pace)
        return None if one is None else one * (self.seeds_of(row) + (self.trials if row.search else 0))

    @property
    def hours(self) -> float:
        """What all rows take here, those that were not measured left out."""
        return sum(self.minutes(row) or 0.0 for row in self.rows) / 60


def read_rows() -> tuple[dict[str, Row], dict[str, list[str]], float]:
    """Return the rows by name, the searches, and the speed of the reference in 10^9 operations a second."""
    given = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    rows = [Row(**row | {"needs": tuple(row.get("needs", ()))}) for row in given["rows"]]
    return {row.name: row for row in rows}, given["searches"], float(given["reference"]["gflops"])


def choose_rows(rows: dict[str, Row], names: tuple[str, ...]) -> list[Row]:
    """Return the named rows and what they need, each after what it needs.

    Raises:
        UserError: If there is no row of a name.
    """
    chosen: dict[str, Row] = {}

    def choose(name: str) -> None:
        if name not in rows:
            raise UserError(f"--rows {name}: there is no such row; there are {', '.join(rows)}")
        for needed in rows[name].needs:
            choose(needed)
        chosen.setdefault(name, rows[name])

    for name in (REFERENCE.partition("/")[2], *names) if names else rows:
        choose(name)
    return list(chosen.values())


def measure_speed() -> float:
    """Return the 10^9 operations a second of a float32 product of matrices on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, best = torch.randn(512, 512), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * 512**3 / best / 1e9


def measured_minutes(folder: Path, rows: list[Row]) -> dict[str, float]:
    """Return the minutes that a run of each row took here, of those that have run."""
    spent = read(folder / "seconds.json")
    return {row.name: spent[name] / 60 for row in rows for name in (row.name, f"{row.name}-seed1") if name in spent}


def read(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing if there is none."""
    return read_json_object(file, "delete it") if file.is_file() else {}


def fit_budget(plan: Plan, budget: float | None) -> Plan:
    """Return the plan with as many trials, seeds and rows as so many hours afford."""
    if budget is None:
        return plan
    while plan.hours > budget and plan.trials > 1:
        plan = replace(plan, trials=plan.trials - 1)
    while plan.hours > budget and plan.seeds > 1:
        plan = replace(plan, seeds=plan.seeds - 1)
    while plan.hours > budget and plan.rows:
        dearest = max(plan.rows, key=lambda row: plan.minutes(row) or 0.0)
        out = {dearest.name}
        while more := {row.name for row in plan.rows if out & {*row.needs}} - out:
            out |= more
        kept = tuple(row for row in plan.rows if row.name not in out)
        plan = replace(plan, rows=kept, left_out=plan.left_out + tuple(row for row in plan.rows if row.name in out))
    return plan


def show_plan(plan: Plan) -> str:
    """Return what is run, and what it takes."""

    def cells(row: Row) -> list[str]:
        minutes = plan.minutes(row)
        trials = str(plan.trials if row.search else 0)
        told = "not measured" if minutes is None else duration(60 * minutes)
        return [row.name, row.why, trials, str(plan.seeds_of(row)), told]

    table = align(["row", "why", "trials", "seeds", "takes"], [cells(row) for row in plan.rows], names=2)
    pace = f"{plan.pace:.2f} times what the reference takes"
    text = f"{plan.dataset}: {plan.hours:.1f} h on one thread of this machine, {pace}\n{table}"
    return "\n".join([text, *too_dear(plan)])


def too_dear(plan: Plan) -> list[str]:
    """Return a line for each row that the budget does not afford."""
    lines = []
    for row in plan.left_out:
        seconds = 60 * (plan.minutes(row) or 0.0)
        runs = plan.seeds_of(row) + (plan.trials if row.search else 0)
        lines.append(f"left out, too dear: {row.name}, {duration(seconds)}, or {duration(seconds / runs)} a run")
    return lines


class Maker:
    """Runs the rows of one dataset."""

    def __init__(self, config: Config, plan: Plan, searches: dict[str, list[str]]) -> None:
        """Take what is to be run."""
        self.config, self.plan, self.searches = config, plan, searches
        self.folder = config.output_dir / plan.dataset

    def flags(self, row: Row) -> list[str]:
        """Return the flags of all runs of a row."""
        where = ["--data_path", str(self.config.data_dir / self.plan.dataset)]
        if row.family in ("SASRec", "Bert4Rec", "Recformer") or row.script:
            where += ["--embedding_dir", str(self.folder / "embedding")]
        own = [*shlex.split(row.flags), *shlex.split(row.on.get(self.plan.dataset, ""))]
        return [*where, *own, *(shlex.split(row.short) if self.config.short else [])]

    def make(self, row: Row) -> None:
        """Search a row's flags, and train it with each seed.

        Raises:
            UserError: If a command fails; the message names the file that tells how.
        """
        if row.script:
            self.call(row.name, [sys.executable, str(ROOT / row.script), *self.flags(row)])
            return
        flags = [*self.flags(row), *(self.search(row) if row.search else [])]
        earlier = read(self.folder / "flags.json")
        # More trials may have found other flags: then earlier runs are made again.
        again = "--overwrite" if earlier.get(row.name, flags) != flags else "--resume"
        for seed in range(1, self.plan.seeds_of(row) + 1):
            drawn = row.family != "Baselines"
            name = f"{row.name}-seed{seed}" if drawn else row.name
            own = ["--runs_dir", str(self.folder / "runs"), "--run_name", name, again]
            own += ["--seed", str(seed), "--no_progress_bar"] if drawn else []
            self.call(name, ["bash", str(ROOT / row.family / "finetune.sh"), *flags, *own])
        write_json(self.folder / "flags.json", earlier | {row.name: flags})

    def search(self, row: Row) -> list[str]:
        """Return the best flags of a row's trials, chosen on validation."""
        assert row.search is not None
        sweep = [sys.executable, str(ROOT / "scripts" / "sweep.py"), row.family, "--name", row.name]
        sweep += ["--trials", str(self.plan.trials), "--runs_dir", str(self.folder)]
        sweep += ["--flags", shlex.join(self.flags(row)), "--search", *self.searches[row.search]]
        self.call(f"{row.name}-search", sweep)
        (best,) = read_json_object(self.folder / "sweeps" / row.name / "best.json", "run the search again")["arms"]
        words = shlex.split(best["command"])
        named = {entry.partition("=")[0] for entry in self.searches[row.search]}
        pairs = itertools.pairwise(words)
        return [part for flag, value in pairs if flag.removeprefix("--") in named for part in (flag, value)]

    def call(self, name: str, command: list[str]) -> None:
        """Run a command, its output going to a file, and note how many seconds its first run took.

        Raises:
            UserError: If it fails.
        """
        said = self.folder / "logs" / f"{name}.txt"
        said.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with said.open("wb") as file:
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if status:
            last = said.read_text(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{name} ended with {status}, {said} tells how: {' '.join(last)}")
        seconds = {name: round(time.perf_counter() - start, 1)} | read(self.folder / "seconds.json")
        write_json(self.folder / "seconds.json", seconds)


def main(config: Config) -> None:
    """Print the plan; run it; write the tables, the pictures and the page of each dataset."""
    from scripts.one_table_report import report

    rows, searches, reference = read_rows()
    chosen = choose_rows(rows, config.rows)
    pace = reference / measure_speed()
    trials, seeds = (1, 1) if config.short else (config.trials, config.seeds)
    share = None if config.budget is None else config.budget / len(config.datasets)
    plans = []
    for name in config.datasets:
        if not (config.data_dir / name).is_dir():
            raise UserError(f"--datasets {name} is not prepared: `python scripts/prepare.py --help` says how")
        measured = measured_minutes(config.output_dir / name, chosen)
        plans.append(fit_budget(Plan(name, tuple(chosen), (), trials, seeds, pace, measured), share))
    for plan in plans:
        print(show_plan(plan), end="\n\n", flush=True)
    if config.plan:
        return
    for plan in plans:
        maker = Maker(config, plan, searches)
        with progress(plan.rows, desc=plan.dataset, unit="row") as bar:
            for row in bar:
                bar.set_postfix_str(row.name)
                maker.make(row)
        seconds = read(maker.folder / "seconds.json")
        print(report(plan, maker.folder, config.data_dir, seconds, REFERENCE, too_dear(plan)))


if __name__ == "__main__":
    run_command(main, Config)
