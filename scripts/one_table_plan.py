"""The rows of scripts/one_table.py, and what it takes to make them."""

import heapq
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqrec.basics.errors import UserError
from seqrec.basics.formatting import DASH, align, duration
from seqrec.basics.opening import read_json_object
from seqrec.data.dataset import load_dataset

ROWS = Path(__file__).with_name("one_table.toml")
REFERENCE = "SASRec/sasrec-none"
"""The row that all others are compared with."""
COST_OF_FEW = 0.25
"""What a training on few users takes, in runs on all: it validates all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A way of recommending; scripts/one_table.toml says what each field is."""

    name: str
    family: str
    flags: str
    why: str
    script: str | None = None
    command: str | None = None
    search: str | None = None
    seeds: int | None = None
    needs: tuple[str, ...] = ()
    start_from: str | None = None
    first: str = ""
    few: bool = False
    dated: bool = False
    reads: tuple[str, ...] = ()
    new: str = ""
    on: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    gib: dict[str, float] = field(default_factory=dict)
    short: str = ""

    @property
    def rests_on(self) -> tuple[str, ...]:
        """Names of the rows that are made before it."""
        return self.needs if self.start_from is None else (*self.needs, self.start_from)


@dataclass(frozen=True, slots=True)
class Search:
    """What scripts/sweep.py is given."""

    space: list[str]
    """Of --search."""
    start: list[str]
    """Of --start: the first trial."""
    start_on: dict[str, list[str]] = field(default_factory=dict)
    """The same for datasets that have their own."""


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
    shares: int = 3
    """Shares of the users that rows marked `few` are trained on, too."""
    peaks: dict[str, float] = field(default_factory=dict)
    """GiB of memory of a run of each row that has run here."""

    def seeds_of(self, row: Row) -> int:
        """Return the number of a row's seeds."""
        return min(row.seeds or self.seeds, self.seeds)

    def minutes(self, row: Row) -> float | None:
        """Return what a row takes here, or None where nobody has measured it."""
        there = row.minutes.get(self.dataset)
        one = self.measured.get(row.name, None if there is None else there * self.pace)
        if one is None:
            return None
        return one * (self.seeds_of(row) * self.runs(row) + (self.trials if row.search else 0))

    def runs(self, row: Row) -> float:
        """Return what a row's trainings with one seed take, in runs on all users."""
        return 1 + row.few * self.shares * COST_OF_FEW

    def memory(self, row: Row) -> float | None:
        """Return the GiB that a run of a row takes, or None where nobody has measured it."""
        return self.peaks.get(row.name, row.gib.get(self.dataset))

    def hours(self, jobs: int = 1) -> float:
        """Return the hours that all rows take here, `jobs` at a time; rows without a measured cost count 0."""
        waiting, running, made, now = list(self.rows), list[tuple[float, str]](), set[str](), 0.0
        while waiting or running:
            for row in first_ready(waiting, made, jobs - len(running)):
                heapq.heappush(running, (now + (self.minutes(row) or 0.0), row.name))
                waiting.remove(row)
            now, name = heapq.heappop(running)
            made.add(name)
        return now / 60


def first_ready(waiting: list[Row], made: set[str], number: int) -> list[Row]:
    """Return the first rows whose needs are made, at most `number`."""
    return [row for row in waiting if made.issuperset(row.rests_on)][:number]


def read_rows() -> tuple[dict[str, Row], dict[str, Search], float]:
    """Return the rows by name, the searches by name, and the reference's 10^9 operations a second."""
    given = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    rows = []
    for row in given["rows"]:
        of_families = {dataset: families.get(row["family"], "") for dataset, families in given["on"].items()}
        own = row.get("on", {})
        on = {
            name: f"{of_families.get(name, '')} {own.get(name, '')}".strip() for name in of_families.keys() | own.keys()
        }
        lists = {name: tuple(row.get(name, ())) for name in ("needs", "reads")}
        rows.append(Row(**row | lists | {"on": own if row.get("script") else on}))
    searches = {
        name: Search(
            space, given["starts"][name], {on: own[name] for on, own in given["starts_on"].items() if name in own}
        )
        for name, space in given["searches"].items()
    }
    return {row.name: row for row in rows}, searches, float(given["reference"]["gflops"])


def choose_rows(rows: dict[str, Row], names: tuple[str, ...]) -> list[Row]:
    """Return the named rows and what they need, each after what it needs.

    Raises:
        UserError: If there is no row of a name.
    """
    chosen: dict[str, Row] = {}

    def choose(name: str) -> None:
        if name not in rows:
            raise UserError(f"--rows {name}: there is no such row; there are {', '.join(rows)}")
        for needed in rows[name].rests_on:
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


def measured_minutes(folder: Path, rows: Sequence[Row]) -> dict[str, float]:
    """Return the minutes that a run of each row took here, of those that have run."""
    spent = read(folder / "seconds.json")
    return {row.name: spent[name] / 60 for row in rows for name in (row.name, f"{row.name}-seed1") if name in spent}


def measured_peaks(folder: Path, dataset: str, rows: Sequence[Row]) -> dict[str, float]:
    """Return the GiB of memory that the first run of each row took here, of those that have run."""
    peaks = {}
    for row in rows:
        for run in (row.name, f"{row.name}-seed1"):
            cost = read(folder / "runs" / row.family / dataset / run / "metrics.json").get("cost", {})
            if cost.get("peak_memory_bytes"):
                peaks[row.name] = cost["peak_memory_bytes"] / 2**30
    return peaks


def read(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing if there is none."""
    return read_json_object(file, "delete it") if file.is_file() else {}


def and_what_rests_on(row: Row, rows: Iterable[Row]) -> set[str]:
    """Return the names of a row and of all rows that need it."""
    out = {row.name}
    while more := {other.name for other in rows if out & {*other.rests_on}} - out:
        out |= more
    return out


def rows_for(dataset: str, data_dir: Path, rows: list[Row]) -> tuple[Row, ...]:
    """Return the rows that a prepared dataset can have, by its times and by the other datasets that there are."""
    has_times, out = load_dataset(data_dir / dataset).timestamps is not None, set[str]()
    for row in rows:
        if (row.dated and not has_times) or not all((data_dir / name).is_dir() for name in row.reads):
            out |= and_what_rests_on(row, rows)
    return tuple(row for row in rows if row.name not in out)


def fit_budget(plan: Plan, budget: float | None, jobs: int = 1) -> Plan:
    """Reduce trials, then seeds, then rows until the plan fits a budget of hours, `jobs` rows at a time."""
    if budget is None:
        return plan
    while plan.hours(jobs) > budget and plan.trials > 0:
        plan = replace(plan, trials=plan.trials - 1)
    while plan.hours(jobs) > budget and plan.seeds > 1:
        plan = replace(plan, seeds=plan.seeds - 1)
    while plan.hours(jobs) > budget and plan.rows:
        out = and_what_rests_on(max(plan.rows, key=lambda row: plan.minutes(row) or 0.0), plan.rows)
        kept = tuple(row for row in plan.rows if row.name not in out)
        plan = replace(plan, rows=kept, left_out=plan.left_out + tuple(row for row in plan.rows if row.name in out))
    return plan


def show_plan(plan: Plan, jobs: int = 1) -> str:
    """Return what is run, and the time and the memory that it takes, `jobs` rows at a time."""

    def cells(row: Row) -> list[str]:
        minutes = plan.minutes(row)
        trials = str(plan.trials if row.search else 0)
        told = "not measured" if minutes is None else duration(60 * minutes)
        gib = plan.memory(row)
        return [row.name, row.why, trials, str(plan.seeds_of(row)), told, DASH if gib is None else f"{gib:.1f} GiB"]

    header = ["row", "why", "trials", "seeds", "takes", "memory"]
    table = align(header, [cells(row) for row in plan.rows], names=2)
    pace = f"{plan.pace:.2f} times what the reference takes"
    unknown = [row for row in plan.rows if plan.minutes(row) is None]
    more = f"; {len(unknown)} rows that nobody has measured come on top, whatever the budget" if unknown else ""
    together = "" if jobs == 1 else f", or {plan.hours(jobs):.1f} h with {jobs} rows at a time"
    most = sum(sorted((plan.memory(row) or 0.0 for row in plan.rows), reverse=True)[:jobs])
    memory = f"; up to {most:.1f} GiB of memory"
    text = (
        f"{plan.dataset}: {plan.hours():.1f} h on one thread of this machine, {pace}{together}{memory}{more}\n{table}"
    )
    return "\n".join([text, *too_dear(plan)])


def too_dear(plan: Plan) -> list[str]:
    """Return a line for each row that the budget does not afford."""
    lines = []
    for row in plan.left_out:
        seconds = 60 * (plan.minutes(row) or 0.0)
        one = 60 * (replace(plan, trials=0, seeds=1).minutes(row) or 0.0) / plan.runs(row)
        lines.append(f"left out, too dear: {row.name}, {duration(seconds)}, or {duration(one)} a run")
    return lines
