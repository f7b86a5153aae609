"""From finished runs to means, paired differences, slices and cost. Shapes: U tested users, S slices.

A *table* holds the runs of one protocol; runs of different protocols never share one. A *group* is one family
with one way to start; two groups are compared by their means over seeds and users.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.comparison.doubts import Doubt, find_doubts
from seqrec.comparison.intervals import Interval, compare_means, holm
from seqrec.comparison.results import (
    COST_KEYS,
    FinishedRun,
    Seen,
    find_run_folders,
    name_run,
    read_runs,
    user_metric,
)
from seqrec.comparison.slices import cut_users
from seqrec.data.dataset import Dataset, load_dataset

BASELINE = "none"
SIGNIFICANT = 0.05
"""Holm-corrected p below this is starred."""
ORDER = (BASELINE, "longformer", "pretrain", "finetune")
"""Starts of an ID model, from no text to text tuned on behaviour; other names come after."""
METRICS = ("NDCG@10", "Recall@10", "MRR")
SAMPLE = ("drawn_users", "draw_seed")
"""What a protocol says where a sample of its users is tested."""
Key = tuple[str, str]
"""Family and group."""


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The mean difference of two groups over the same users."""

    family: str
    group: str
    baseline: Key
    """The group that is subtracted."""
    relative: float | None
    """The mean difference divided by the baseline's mean; None where that is 0."""
    p_holm: float | None
    """p corrected over every test of the table; None where there is no p."""

    @property
    def names(self) -> tuple[str, str]:
        """The two groups' names, the second with its family where that is another one."""
        return self.group, self.baseline[1] if self.baseline[0] == self.family else "/".join(self.baseline)

    @property
    def is_clear(self) -> bool:
        """Whether the difference survives Holm's correction: a star. With one seed never."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class GroupResult:
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

    @property
    def key(self) -> Key:
        """Family and group."""
        return self.family, self.group


@dataclass(frozen=True, slots=True)
class Cell:
    """One group in one slice; the difference is to the group's baseline, with its uncorrected interval."""

    mean: float | None
    """None in a slice without users."""
    difference: float | None = None
    low: float | None = None
    """None with fewer than two users."""
    high: float | None = None
    one_seed: bool = False
    """Whether the interval holds users alone."""

    @property
    def is_clear(self) -> bool:
        """Whether the uncorrected interval excludes zero; with one seed never."""
        if self.one_seed or self.low is None or self.high is None:
            return False
        return self.low < self.high and self.low * self.high > 0


@dataclass(frozen=True, slots=True)
class Slicing:
    """One way to slice the tested users."""

    title: str
    labels: tuple[str, ...]
    users: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    """Family, group and one cell per label."""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Results of the runs of one protocol."""

    protocol: dict[str, Any]
    metrics: tuple[str, ...]
    users: int
    groups: tuple[GroupResult, ...]
    differences: tuple[Difference, ...]
    """One test each, see `list_pairs`."""
    slicings: tuple[Slicing, ...]
    slices_note: str
    """Why there are no slices; empty where there are."""
    doubts: tuple[Doubt, ...]
    """Suspicious runs."""
    runs: tuple[FinishedRun, ...]
    reference: Key | None
    """The one group that all others are compared with; None compares within families, with `none`."""

    def baseline_of(self, family: str) -> Key:
        """Return the group that a family's groups are compared with; there may be no such group."""
        return self.reference or (family, BASELINE)

    def difference(self, family: str, group: str) -> Difference | None:
        """Return a group's difference to its baseline, None where it was not tested."""
        key = (family, group, self.baseline_of(family))
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
    tables: tuple[ResultTable, ...]
    unfinished: tuple[str, ...]
    """Names of runs that are not in any table because they did not end."""
    left_out: tuple[str, ...]
    """Names of runs that the user left out."""
    reference: str
    """Name of the group that others are compared with: `none`, each family's own, or "family/group"."""


def compare_runs(
    runs_dir: Path,
    data_dir: Path,
    dataset: str,
    metric: str = "NDCG@10",
    families: Sequence[str] = (),
    groups: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    reference: str | None = None,
    seen: Seen = "own",
) -> Comparison:
    """Return one table per protocol from the run folders of a dataset.

    A table of a sample of users has the runs of all users, too, on those of the sample.

    Args:
        runs_dir: Holds `<family>/<dataset>/<run name>/`.
        data_dir: Holds `<dataset>/`; without it there are no slices and no check of the hashes against it.
        dataset: Its name.
        metric: "NDCG@k", "Recall@k" or "MRR".
        families: Only these, where given.
        groups: Only these, where given.
        leave_out: Names of finished runs to leave out, "family/dataset/run name".
        reference: "family/group" that all other groups are compared with, which --families and --groups keep; by
            default groups are compared within families, see `list_pairs`.
        seen: Which of the runs' tests is compared.

    Raises:
        MissingFileError: If no run is finished.
        UserError: If a run contradicts itself, another run or the dataset, a filter matches nothing, or there is no
            such reference.
    """
    user_metric(np.zeros(1, dtype=np.int64), metric)  # an unknown metric fails before any work
    finished, unfinished = find_run_folders(runs_dir, dataset)
    named = {name_run(folder): folder for folder in finished}
    if unknown := sorted(set(leave_out) - set(named)):
        raise UserError(f"--leave_out names {unknown}, but the finished runs are {sorted(named)}")
    runs = read_runs([folder for name, folder in named.items() if name not in leave_out], seen)
    base = None if reference is None else _find_reference(reference, runs)
    runs = _filter_runs(runs, families, groups, base)
    prepared = load_dataset(data_dir / dataset) if (data_dir / dataset).is_dir() else None
    if prepared is not None:
        for run in runs:
            _check_dataset(run, prepared)
    missing = f"no slices: {data_dir.name}/{dataset} does not exist"
    protocols: dict[str, list[FinishedRun]] = {}
    for run in sorted(runs, key=_row_order):
        protocols.setdefault(json.dumps(run.protocol, sort_keys=True), []).append(run)
    for members in protocols.values():
        members.extend(_join_sample(members, protocols))
        members.sort(key=_row_order)
    tables = [_build_table(protocols[key], prepared, missing, metric, base) for key in sorted(protocols)]
    left_out = tuple(name for name in named if name in leave_out)
    return Comparison(dataset, metric, tuple(tables), tuple(map(name_run, unfinished)), left_out, reference or BASELINE)


def _join_sample(own: list[FinishedRun], protocols: dict[str, list[FinishedRun]]) -> list[FinishedRun]:
    """Return the runs that tested all users where these tested a sample of them, on those of the sample."""
    sample, groups = own[0], {(run.family, run.group) for run in own}
    whole = {key: value for key, value in sample.protocol.items() if key not in SAMPLE}
    if whole == sample.protocol or sample.owners is not None:
        return []
    runs = protocols.get(json.dumps(whole, sort_keys=True), [])
    runs = [run for run in runs if (run.family, run.group) not in groups]
    return [run.among(sample) for run in runs if np.all(run.ranks[sample.ranks >= 0] >= 0)]


def _row_order(run: FinishedRun) -> tuple[str, int, str, int]:
    known = ORDER.index(run.group) if run.group in ORDER else len(ORDER)
    return run.family, known, run.group, run.seed


def _find_reference(reference: str, runs: Sequence[FinishedRun]) -> Key:
    there = sorted({f"{run.family}/{run.group}" for run in runs})
    if reference not in there:
        raise UserError(f"--reference {reference!r} has no finished run: give one of {', '.join(there)}")
    family, _, group = reference.partition("/")
    return family, group


def _filter_runs(
    runs: list[FinishedRun], families: Sequence[str], groups: Sequence[str], reference: Key | None
) -> list[FinishedRun]:
    for flag, wanted, there in (
        ("--families", families, {run.family for run in runs}),
        ("--groups", groups, {run.group for run in runs}),
    ):
        unknown = sorted(set(wanted) - there)
        if unknown:
            raise UserError(f"{flag} names {unknown}, but the finished runs have {sorted(there)}")
    kept = [
        run
        for run in runs
        if (run.family, run.group) == reference
        or ((not families or run.family in families) and (not groups or run.group in groups))
    ]
    if not kept:
        raise UserError(
            f"no finished run that is not left out is of families {list(families)} and groups {list(groups)} at once"
        )
    return kept


def _check_dataset(run: FinishedRun, dataset: Dataset) -> None:
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


def _build_table(
    runs: list[FinishedRun], dataset: Dataset | None, note: str, metric: str, reference: Key | None
) -> ResultTable:
    by_group: dict[Key, list[FinishedRun]] = {}
    for run in runs:
        by_group.setdefault((run.family, run.group), []).append(run)
    metrics = METRICS if metric in METRICS else (*METRICS, metric)
    groups = tuple(_summarise(members, metrics) for members in by_group.values())
    values = {  # each (S, U)
        key: np.stack([run.by_user(metric) for run in members]) for key, members in by_group.items()
    }
    differences = _compare_groups(values, reference)
    slicings: tuple[Slicing, ...] = ()
    if dataset is not None:
        cuts, note = cut_users(runs[0], dataset)
        slicings = tuple(_fill_slices(*cut, values, reference) for cut in cuts)
    return ResultTable(
        protocol=runs[0].protocol,
        metrics=metrics,
        users=len(runs[0].users),
        groups=groups,
        differences=differences,
        slicings=slicings,
        slices_note=note,
        doubts=find_doubts(by_group, values, metric),
        runs=tuple(runs),
        reference=reference,
    )


def _summarise(runs: list[FinishedRun], metrics: tuple[str, ...]) -> GroupResult:
    by_seed = {name: tuple(float(run.by_user(name).mean()) for run in runs) for name in metrics}
    recorded = {key: [float(c) for run in runs if (c := run.cost.get(key)) is not None] for key in COST_KEYS}
    return GroupResult(
        family=runs[0].family,
        group=runs[0].group,
        seeds=tuple(run.seed for run in runs),
        by_seed=by_seed,
        mean={name: float(np.mean(seeds)) for name, seeds in by_seed.items()},
        sd={name: float(np.std(seeds, ddof=1)) if len(runs) > 1 else None for name, seeds in by_seed.items()},
        cost={key: median(seeds) if seeds else None for key, seeds in recorded.items()},
        device=", ".join(sorted({str(run.cost.get("device", "?")) for run in runs})),
    )


def list_pairs(groups: Sequence[Key], reference: Key | None = None) -> list[tuple[Key, Key]]:
    """Return the tests of a table as (group, baseline).

    With a reference, every other group is tested against it. Without one, within each family, every group is tested
    against `none` and against the one before it in `ORDER`.

    >>> list_pairs([("A", "none"), ("A", "finetune"), ("B", "mine")])
    [(('A', 'finetune'), ('A', 'none'))]
    >>> list_pairs([("A", "none"), ("A", "finetune"), ("B", "mine")], reference=("A", "finetune"))
    [(('A', 'none'), ('A', 'finetune')), (('B', 'mine'), ('A', 'finetune'))]
    """
    if reference is not None:
        return [(key, reference) for key in groups if key != reference and reference in groups]
    to_baseline = [((f, g), (f, BASELINE)) for f, g in groups if g != BASELINE and (f, BASELINE) in groups]
    to_previous = []
    for family in dict.fromkeys(f for f, _ in groups):
        present = [(family, g) for g in ORDER if (family, g) in groups]
        to_previous += [(own, before) for before, own in itertools.pairwise(present)]
    return list(dict.fromkeys(to_baseline + to_previous))


def _compare_groups(values: dict[Key, NDArray[np.float64]], reference: Key | None) -> tuple[Difference, ...]:
    """Return every difference that the table tests, from (S, U) metrics of each group."""
    if next(iter(values.values())).shape[1] < 2:
        return ()  # one user tells nothing of others
    pairs = list_pairs(list(values), reference)
    intervals = [compare_means(values[own], values[baseline]) for own, baseline in pairs]
    tested = [place for place, interval in enumerate(intervals) if interval.p is not None]
    p = np.array([intervals[place].p for place in tested], dtype=np.float64)
    corrected = dict(zip(tested, holm(p).tolist(), strict=True))
    differences = []
    for place, (((family, group), baseline), interval) in enumerate(zip(pairs, intervals, strict=True)):
        base = float(values[baseline].mean())
        relative = interval.mean / base if base > 0 else None
        differences.append(
            Difference(
                **asdict(interval),
                family=family,
                group=group,
                baseline=baseline,
                relative=relative,
                p_holm=corrected.get(place),
            )
        )
    return tuple(differences)


def _fill_slices(
    title: str,
    labels: tuple[str, ...],
    where: NDArray[np.int64],
    values: dict[Key, NDArray[np.float64]],
    reference: Key | None,
) -> Slicing:
    users = np.bincount(where, minlength=len(labels))
    members = [np.flatnonzero(where == i) for i in range(len(labels))]
    rows = []
    for (family, group), own in values.items():
        baseline = reference or (family, BASELINE)
        base = values.get(baseline) if (family, group) != baseline else None
        cells = tuple(_fill_cell(own[:, member], None if base is None else base[:, member]) for member in members)
        rows.append((family, group, cells))
    return Slicing(title, labels, tuple(users.tolist()), tuple(rows))


def _fill_cell(own: NDArray[np.float64], base: NDArray[np.float64] | None) -> Cell:
    """Return a cell from the (S, U) metrics of its users."""
    if not own.size:
        return Cell(None)
    mean = float(own.mean())
    if base is None:
        return Cell(mean)
    if own.shape[1] < 2:
        return Cell(mean, mean - float(base.mean()))
    interval = compare_means(own, base)
    return Cell(mean, interval.mean, interval.low, interval.high, interval.p is None)
