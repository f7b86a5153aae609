"""From finished runs to means, paired differences, slices and cost. Shapes: U tested users, S slices.

A *table* holds the runs of one protocol; runs of different protocols never share one. A *group* is one family
with one way to start; its seeds are averaged per user before two groups are compared.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from seqrec.bootstrap import holm, paired_bootstrap
from seqrec.dataset import Dataset, load_dataset
from seqrec.errors import UserError
from seqrec.results import Run, find_run_folders, read_runs, user_metric
from seqrec.slices import cut_users

BASELINE = "none"
ORDER = (BASELINE, "longformer", "pretrain", "finetune")
"""Ways to start an ID model, from no text to text tuned on behaviour; a user's own names come after."""
METRICS = ("NDCG@10", "Recall@10", "MRR")
COST_KEYS = (
    "train_seconds",
    "test_seconds",
    "peak_memory_bytes",
    "parameters",
    "trainable_parameters",
    "item_vector_bytes",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of two groups of one family over the same users."""

    family: str
    group: str
    baseline: str
    mean: float
    relative: float | None
    """The mean divided by the baseline's; None where that is 0."""
    low: float
    high: float
    p: float
    p_holm: float
    """p corrected over every test of the table."""
    seed_error: float | None
    """Standard error of the difference from the seeds alone; None with a single seed on either side."""


@dataclass(frozen=True, slots=True)
class Group:
    """One row: a family with one way to start."""

    family: str
    group: str
    seeds: tuple[int, ...]
    by_seed: dict[str, tuple[float, ...]]
    """Each metric, in the order of the seeds."""
    mean: dict[str, float]
    sd: dict[str, float | None]
    """Standard deviation over seeds (n - 1); None with one seed."""
    cost: dict[str, float | None]
    """Median over seeds; None where no run recorded it."""
    device: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One group in one slice; the difference is to the family's baseline, with its uncorrected interval."""

    mean: float | None
    """None in a slice without users."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Slicing:
    """The tested users cut one way."""

    title: str
    labels: tuple[str, ...]
    users: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    """Family, group and one cell per label."""


@dataclass(frozen=True, slots=True)
class Table:
    """Everything said about the runs of one protocol."""

    protocol: dict[str, Any]
    metrics: tuple[str, ...]
    users: int
    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    """Every group against its family's baseline, then against the one before it in `ORDER`; one test each."""
    slicings: tuple[Slicing, ...]
    slices_note: str
    """Why there are no slices; empty where there are."""
    runs: tuple[Run, ...]

    def difference(self, family: str, group: str, baseline: str = BASELINE) -> Difference | None:
        """Return the difference of two groups, None where it was not tested."""
        key = (family, group, baseline)
        return next((d for d in self.differences if (d.family, d.group, d.baseline) == key), None)

    @property
    def families(self) -> tuple[str, ...]:
        """The families in the order of their rows."""
        return tuple(dict.fromkeys(row.family for row in self.groups))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tables of a dataset."""

    dataset: str
    metric: str
    """The metric of the differences and of the slices."""
    resamples: int
    seed: int
    tables: tuple[Table, ...]
    unfinished: tuple[Path, ...]


def compare_runs(
    runs_dir: Path,
    data_dir: Path,
    dataset: str,
    metric: str = "NDCG@10",
    resamples: int = 10_000,
    seed: int = 0,
    families: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Comparison:
    """Return one table per protocol from the run folders of a dataset.

    Args:
        runs_dir: Holds `<family>/<dataset>/<run name>/`.
        data_dir: Holds `<dataset>/`; without it there are no slices and no check of the hashes against it.
        dataset: Its name.
        metric: "NDCG@k", "Recall@k" or "MRR".
        resamples: Bootstrap resamples of the users, at least 1.
        seed: Of the bootstrap.
        families: Only these, where given.
        groups: Only these, where given.

    Raises:
        MissingFileError: If no run is finished.
        UserError: If a run contradicts itself, another run or the dataset, or a filter matches nothing.
    """
    user_metric(np.zeros(1, dtype=np.int64), metric)  # an unknown metric fails before any work
    finished, unfinished = find_run_folders(runs_dir, dataset)
    runs = _filter_runs(read_runs(finished), families, groups)
    prepared = load_dataset(data_dir / dataset) if (data_dir / dataset).is_dir() else None
    if prepared is not None:
        for run in runs:
            _check_dataset(run, prepared)
    missing = f"no slices: {data_dir.name}/{dataset} does not exist"
    protocols: dict[str, list[Run]] = {}
    for run in sorted(runs, key=_row_order):
        protocols.setdefault(json.dumps(run.protocol, sort_keys=True), []).append(run)
    tables = [_build_table(protocols[key], prepared, missing, metric, resamples, seed) for key in sorted(protocols)]
    return Comparison(dataset, metric, resamples, seed, tuple(tables), tuple(unfinished))


def _row_order(run: Run) -> tuple[str, int, str, int]:
    known = ORDER.index(run.group) if run.group in ORDER else len(ORDER)
    return run.family, known, run.group, run.seed


def _filter_runs(runs: list[Run], families: Sequence[str], groups: Sequence[str]) -> list[Run]:
    for flag, wanted, there in (
        ("--families", families, {run.family for run in runs}),
        ("--groups", groups, {run.group for run in runs}),
    ):
        unknown = sorted(set(wanted) - there)
        if unknown:
            raise UserError(f"{flag} names {unknown}, but the finished runs have {sorted(there)}")
    kept = [r for r in runs if (not families or r.family in families) and (not groups or r.group in groups)]
    if not kept:
        raise UserError(f"no finished run is of families {list(families)} and groups {list(groups)} at once")
    return kept


def _check_dataset(run: Run, dataset: Dataset) -> None:
    """Refuse a run that was made on other data than what lies in the dataset's folder now."""
    for key in ("item_ids_sha256", "sequences_sha256"):
        if run.protocol[key] != (now := getattr(dataset, key)):
            raise UserError(
                f"{run.folder} was made on data with {key} {str(run.protocol[key])[:12]}, but "
                f"{dataset.path} has {now[:12]}: the dataset was prepared again in between. Run it again on "
                f"the present data, or restore the former with `python scripts/prepare.py SOURCE ... --name "
                f"{dataset.path.name}`, or move {run.folder} away"
            )
    if run.owners is None and len(run.ranks) != dataset.num_users:
        raise UserError(
            f"{run.folder / 'ranks-test.npy'} has {len(run.ranks)} users, but {dataset.path} has "
            f"{dataset.num_users}: delete the run and make it again"
        )


def _build_table(runs: list[Run], dataset: Dataset | None, note: str, metric: str, resamples: int, seed: int) -> Table:
    by_group: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_group.setdefault((run.family, run.group), []).append(run)
    metrics = METRICS if metric in METRICS else (*METRICS, metric)
    groups = tuple(_summarise(members, metrics) for members in by_group.values())
    values = {  # each (U,)
        key: np.mean([run.by_user(metric) for run in members], axis=0) for key, members in by_group.items()
    }
    differences = _compare_groups(groups, values, metric, resamples, seed)
    slicings: tuple[Slicing, ...] = ()
    if dataset is not None:
        cuts, note = cut_users(runs[0], dataset)
        slicings = tuple(_fill_slices(*cut, values, resamples, seed) for cut in cuts)
    return Table(runs[0].protocol, metrics, len(runs[0].users), groups, differences, slicings, note, tuple(runs))


def _summarise(runs: list[Run], metrics: tuple[str, ...]) -> Group:
    by_seed = {name: tuple(float(run.by_user(name).mean()) for run in runs) for name in metrics}
    recorded = {key: [float(c) for run in runs if (c := run.cost.get(key)) is not None] for key in COST_KEYS}
    return Group(
        family=runs[0].family,
        group=runs[0].group,
        seeds=tuple(run.seed for run in runs),
        by_seed=by_seed,
        mean={name: float(np.mean(seeds)) for name, seeds in by_seed.items()},
        sd={name: float(np.std(seeds, ddof=1)) if len(runs) > 1 else None for name, seeds in by_seed.items()},
        cost={key: median(seeds) if seeds else None for key, seeds in recorded.items()},
        device=", ".join(sorted({str(run.cost.get("device", "?")) for run in runs})),
    )


def list_pairs(groups: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return the tests of a table as (family, group, baseline): each group against `none` and the one before.

    Args:
        groups: (family, group) of every row. The one before counts only within `ORDER`.
    """
    to_baseline = [(f, g, BASELINE) for f, g in groups if g != BASELINE and (f, BASELINE) in groups]
    to_previous = []
    for family in dict.fromkeys(f for f, _ in groups):
        present = [g for g in ORDER if (family, g) in groups]
        to_previous += [(family, g, before) for before, g in itertools.pairwise(present)]
    return list(dict.fromkeys(to_baseline + to_previous))


def _compare_groups(
    groups: Sequence[Group],
    values: dict[tuple[str, str], NDArray[np.float64]],
    metric: str,
    resamples: int,
    seed: int,
) -> tuple[Difference, ...]:
    pairs = list_pairs(list(values))
    rows = {(row.family, row.group): row for row in groups}
    tests = [
        paired_bootstrap(values[f, g] - values[f, b], resamples, _generator(seed, f, g, b))
        for f, g, b in tqdm(pairs, desc="bootstrap", leave=False, disable=None)
    ]
    corrected = holm(np.array([test.p for test in tests]))
    differences = []
    for (f, g, b), test, p_holm in zip(pairs, tests, corrected, strict=True):
        base = float(values[f, b].mean())
        error = _seed_error(rows[f, g], rows[f, b], metric)
        relative = test.mean / base if base > 0 else None
        differences.append(Difference(f, g, b, test.mean, relative, test.low, test.high, test.p, float(p_holm), error))
    return tuple(differences)


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator of each test's own, so that a figure does not depend on the table's other rows."""
    return np.random.default_rng([seed, *"/".join(names).encode()])


def _seed_error(row: Group, baseline: Group, metric: str) -> float | None:
    one, other = row.sd[metric], baseline.sd[metric]
    if one is None or other is None:
        return None
    return float(np.sqrt(one**2 / len(row.seeds) + other**2 / len(baseline.seeds)))


def _fill_slices(
    title: str,
    labels: tuple[str, ...],
    where: NDArray[np.int64],
    values: dict[tuple[str, str], NDArray[np.float64]],
    resamples: int,
    seed: int,
) -> Slicing:
    users = np.bincount(where, minlength=len(labels))
    members = [where == i for i in range(len(labels))]
    rows = []
    for (family, group), own in tqdm(values.items(), desc=title, leave=False, disable=None):
        base = values.get((family, BASELINE)) if group != BASELINE else None
        cells = []
        for label, member in zip(labels, members, strict=True):
            if not member.any():
                cells.append(Cell(None))
            elif base is None:
                cells.append(Cell(float(own[member].mean())))
            else:
                generator = _generator(seed, title, label, family, group)
                test = paired_bootstrap(own[member] - base[member], resamples, generator)
                cells.append(Cell(float(own[member].mean()), test.mean, test.low, test.high))
        rows.append((family, group, tuple(cells)))
    return Slicing(title, labels, tuple(users.tolist()), tuple(rows))
