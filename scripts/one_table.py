"""Make one table of every way of using a language model: equal trials, chosen on validation, three seeds, and the cost.

python scripts/one_table.py --datasets amazon-scientific --plan
python scripts/one_table.py --datasets amazon-scientific --budget 6
python scripts/one_table.py --datasets demo --short

The rows are those of scripts/one_table.toml. A row's flags are searched by scripts/sweep.py, every arm with the same
number of trials; the best ones on validation are trained with several seeds and tested, and some rows on a few of the
users, too. The same command goes on after a kill, and adds what a larger budget affords.
"""

import itertools
import os
import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.one_table_plan import (
    Plan,
    Row,
    Search,
    choose_rows,
    first_ready,
    fit_budget,
    measure_speed,
    measured_minutes,
    measured_peaks,
    read,
    read_rows,
    rows_for,
    show_plan,
    too_dear,
)
from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_json
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.data.dataset import load_dataset

NO_VECTORS = ("Baselines", "PLMSASRec/preinference.py")
"""Commands without --embedding_dir."""


@dataclass(frozen=True, slots=True)
class Config:
    """Make one table of every way of using a language model."""

    datasets: tuple[str, ...]
    """Prepared datasets."""
    rows: tuple[str, ...] = ()
    """Rows by name; what they need is made, too. All if not given."""
    trials: int = 10
    """Trials of every row that has a search; with 0 it gets the flags that its first trial would have."""
    seeds: int = 3
    """Seeds of every row that draws anything."""
    shares: tuple[float, ...] = (0.01, 0.05, 0.2)
    """Shares of the users that rows marked `few` are trained on, too; none if empty."""
    budget: float | None = None
    """Hours to spend here, --jobs rows at a time: fewer trials, then fewer seeds, then without the dearest rows, never
    by other rules."""
    jobs: int = 1
    """Rows that are made at a time; with OMP_NUM_THREADS=1 one for each core, and seconds are of so many at once."""
    plan: bool = False
    """Print what is to be done and what it takes, and stop."""
    short: bool = False
    """Try it out: a trial, a seed, an epoch and one share of the users each, in a folder of their own."""
    output_dir: Path = ROOT / "runs" / "one-table"
    """Folder of everything that is made."""
    data_dir: Path = ROOT / "data"
    """Folder of the datasets."""

    def __post_init__(self) -> None:
        require_at_least(0, self, "trials")
        require_at_least(1, self, "seeds", "jobs")
        require_above(0, self, "budget")
        if bad := [share for share in self.shares if not 0 < share < 1]:
            raise UserError(f"--shares must lie between 0 and 1, got {bad[0]}")

    @property
    def shares_made(self) -> tuple[float, ...]:
        """Shares of the users to train on: one under --short."""
        return self.shares[:1] if self.short else self.shares

    def folder(self, dataset: str) -> Path:
        """Return where everything of a dataset lies."""
        return (self.output_dir / "short" if self.short else self.output_dir) / dataset


class Maker:
    """Runs the rows of one dataset."""

    def __init__(self, config: Config, plan: Plan, searches: dict[str, Search]) -> None:
        """Take what is to be run."""
        self.config, self.plan, self.searches = config, plan, searches
        self.folder = config.folder(plan.dataset)
        self.lock = threading.Lock()
        self.dataset = load_dataset(config.data_dir / plan.dataset)
        self.few = [max(round(share * self.dataset.num_users), 1) for share in config.shares_made]

    def make_all(self, jobs: int) -> None:
        """Make all rows, so many at a time, each after what it needs.

        Raises:
            UserError: If a command fails; what has begun ends first.
        """
        waiting, running, made = list(self.plan.rows), dict[Future[None], Row](), set[str]()
        with ThreadPoolExecutor(jobs) as pool, progress(desc=self.plan.dataset, total=len(waiting), unit="row") as bar:
            while waiting or running:
                ready = first_ready(waiting, made, jobs - len(running))
                running |= {pool.submit(self.make, row): row for row in ready}
                waiting = [row for row in waiting if row not in ready]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    made.add(running.pop(future).name)
                    bar.update()

    def flags(self, row: Row) -> list[str]:
        """Return the flags of all runs of a row."""
        where = ["--data_path", str(self.config.data_dir / self.plan.dataset)]
        if (row.script or row.family) not in NO_VECTORS:
            where += ["--embedding_dir", str(self.folder / "embedding")]
        own = [*shlex.split(row.flags), *shlex.split(row.on.get(self.plan.dataset, ""))]
        return [*where, *own, *(shlex.split(row.short) if self.config.short else [])]

    def make(self, row: Row) -> None:
        """Search a row's flags, and train it with each seed.

        Raises:
            UserError: If a command fails; the message names the file that tells how.
        """
        if row.script:
            self.call(row.name, [*program(row.script), *self.flags(row)])
            return
        flags = [*self.flags(row), *(self.search(row) if row.search else []), *self.start_from(row)]
        earlier = read(self.folder / "flags.json").get(row.name)
        # More trials may have found other flags: then earlier runs are made again.
        every = [*flags, "--overwrite" if earlier not in (None, flags) else "--resume"]
        done = earlier == flags
        for seed in range(1, self.plan.seeds_of(row) + 1):
            own = [*every, *(shlex.split(row.first) if seed == 1 else [])]
            self.train(row, row.name, seed, own, self.folder / "runs", done)
            for users in self.few if row.few else []:
                own = [*every, "--train_users", str(users)]
                self.train(row, f"{row.name}-of{users}", seed, own, self.folder / "few" / str(users), done)
        self.note("flags.json", {row.name: flags})

    def train(self, row: Row, name: str, seed: int, flags: list[str], runs_dir: Path, done: bool) -> None:
        """Train a row with one seed.

        Args:
            row: The row.
            name: Name of the log file and of the entry in seconds.json, without the seed.
            seed: Seed of the run.
            flags: Flags of the run.
            runs_dir: Folder of the run folders.
            done: Skip a finished run of the same data: it is known to have these flags.
        """
        drawn = row.family != "Baselines"
        run = f"{row.name}-seed{seed}" if drawn else row.name
        made_of = read(runs_dir / row.family / self.plan.dataset / run / "metrics.json").get("protocol", {})
        if done and made_of.get("sequences_sha256") == self.dataset.sequences_sha256:
            return
        own = ["--seed", str(seed), "--no_progress_bar"] if drawn else []
        where = ["--runs_dir", str(runs_dir), "--run_name", run]
        command = [*program(row.command or f"{row.family}/finetune.sh"), *flags, *where, *own]
        self.call(f"{name}-seed{seed}" if drawn else name, command)

    def search(self, row: Row) -> list[str]:
        """Return the best flags of a row's trials, chosen on validation."""
        assert row.search is not None
        search = self.searches[row.search]
        start = search.start_on.get(self.plan.dataset, search.start)
        if self.plan.trials == 0:
            return [part for entry in start for part in f"--{entry}".split("=")]
        sweep = [sys.executable, str(ROOT / "scripts" / "sweep.py"), row.family, "--name", row.name]
        sweep += ["--trials", str(self.plan.trials), "--runs_dir", str(self.folder)]
        sweep += ["--flags", shlex.join(self.flags(row)), "--search", *search.space, "--start", *start]
        self.call(f"{row.name}-search", sweep)
        (best,) = read_json_object(self.folder / "sweeps" / row.name / "best.json", "run the search again")["arms"]
        words = shlex.split(best["command"])
        named = {entry.partition("=")[0] for entry in search.space}
        pairs = itertools.pairwise(words)
        return [part for flag, value in pairs if flag.removeprefix("--") in named for part in (flag, value)]

    def start_from(self, row: Row) -> list[str]:
        """Return the flags of the row that another starts from, as its search found them, and where its run lies."""
        if row.start_from is None:
            return []
        first = next(other for other in self.plan.rows if other.name == row.start_from)
        found = read(self.folder / "flags.json")[first.name][len(self.flags(first)) :]
        run = self.folder / "runs" / first.family / self.plan.dataset / f"{first.name}-seed1"
        return [*found, "--start_from", str(run)]

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
        self.note("seconds.json", {name: round(time.perf_counter() - start, 1)}, keep=True)

    def note(self, file: str, entries: dict[str, Any], keep: bool = False) -> None:
        """Write entries to a JSON file of the folder, or `keep` those of their names that are there."""
        with self.lock:
            there = read(self.folder / file)
            write_json(self.folder / file, entries | there if keep else there | entries)

    def spent(self) -> str:
        """Return what all that was made took, on what."""
        from scripts.benchmarks.sides import processor

        hours = sum(read(self.folder / "seconds.json").values()) / 3600
        plan, jobs = self.plan, self.config.jobs
        at_once = "one row at a time" if jobs == 1 else f"{jobs} rows at a time"
        trials = f"{plan.trials} trials of every row that is searched" if plan.trials else "no trials"
        return (
            f"{trials}, {plan.seeds} seeds; {hours:.1f} h in all, {at_once}, "
            f"threads each: {os.environ.get('OMP_NUM_THREADS', 'all')}; {processor()}, {time.strftime('%Y-%m-%d')}"
        )


def program(script: str) -> list[str]:
    """Return the command of a script of the project, by its path there."""
    return ["bash" if script.endswith(".sh") else sys.executable, str(ROOT / script)]


def main(config: Config) -> None:
    """Print the plan; run it; write the tables, the pictures and the page of each dataset."""
    from scripts.one_table_report import report, write_page

    rows, searches, reference = read_rows()
    chosen = choose_rows(rows, config.rows)
    pace = reference / measure_speed()
    trials, seeds = (1, 1) if config.short else (config.trials, config.seeds)
    share = None if config.budget is None else config.budget / len(config.datasets)
    plans = []
    for name in config.datasets:
        if not (config.data_dir / name).is_dir():
            raise UserError(f"--datasets {name} is not prepared: `python scripts/prepare.py --help` says how")
        folder, own = config.folder(name), rows_for(name, config.data_dir, chosen)
        known = measured_minutes(folder, own), len(config.shares_made), measured_peaks(folder, name, own)
        whole = Plan(name, own, (), trials, seeds, pace, *known)
        plans.append(fit_budget(whole, share, config.jobs))
    for plan in plans:
        print(show_plan(plan, config.jobs), end="\n\n", flush=True)
    if config.plan:
        return
    for plan in plans:
        maker = Maker(config, plan, searches)
        maker.make_all(config.jobs)
        notes = [maker.spent(), *too_dear(plan)]
        print(report(plan, maker.folder, config.data_dir, maker.few, notes), end="\n\n", flush=True)
    print(f"all datasets: {write_page(maker.folder.parent)}")


if __name__ == "__main__":
    run_command(main, Config)
