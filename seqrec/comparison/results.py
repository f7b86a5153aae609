"""Finished runs, read back from their folders and checked. Shapes: n targets."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.names import list_families
from seqrec.basics.opening import check_field, read_array, read_json_object
from seqrec.basics.paths import ROOT
from seqrec.basics.settings import CHANGED_DEFAULTS, NO_FLAGS
from seqrec.data.splits import SplitName
from seqrec.evaluation.metrics import (
    OTHER_RANKS,
    RANKS,
    USERS,
    join_by_user,
    mean_by_user,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
)

log = logging.getLogger(__name__)
_WHOLE, _NUMBER, _TEXT, _NONE = (int,), (float, int), (str,), (NoneType,)
Kinds = dict[str, tuple[type, ...]]
FIELDS: Kinds = {
    **dict.fromkeys(("family", "dataset", "group"), _TEXT),
    **{"seed": _WHOLE, "protocol": (dict,), "test": (dict,), "cost": (dict,)},
    **dict.fromkeys(("best_epoch", "epochs"), _WHOLE + _NONE),
    **{"vectors_sha256": _TEXT + _NONE},
}
"""Fields of metrics.json; see the dataclass below."""
DEFAULTS: dict[str, Any] = {"cost": {}, "best_epoch": None, "epochs": None}
"""Defaults of fields that a run may lack."""
PROTOCOL_FIELDS: Kinds = {
    **dict.fromkeys(("split", "sequences_sha256", "item_ids_sha256"), _TEXT),
    **{"sample_size": _WHOLE, "filter_seen": (bool,), "num_items": _WHOLE},
}
COST_KEYS = (
    "train_seconds",
    "test_seconds",
    "peak_memory_bytes",
    "parameters",
    "trainable_parameters",
    "item_vector_bytes",
)
TOLERANCE = 1e-6
"""Tolerance between a metric recomputed from the ranks and that of metrics.json."""
NO_SETTINGS = (
    *("seed", "run_name", "runs_dir", "resume", "overwrite", "progress_bar", *sorted(NO_FLAGS)),
    *("dataset", "data_path"),
    *("embedding_dir", "export_name"),  # of vectors that are read, the hashes are compared
    *("accelerator", "devices", "num_nodes", "strategy", "dataloader_num_workers"),
)
"""Keys of config.json in which two seeds of one group may differ."""
Seen = Literal["own", "kept", "left_out"]
"""Which of a run's two tests is read: what users have had is among the candidates, left out, or as its flags said."""
_PER_USER = {"NDCG": ndcg_at_k, "Recall": recall_at_k}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One finished run folder, `runs/<family>/<dataset>/<name>/`."""

    folder: Path
    family: str
    group: str
    """The run's name without its seed: "none", "longformer", "pretrain", "finetune" or the user's own."""
    seed: int
    protocol: dict[str, Any]
    """Everything that two runs must share to be comparable."""
    test: dict[str, float]
    ranks: NDArray[np.int64]
    """(n,) 0-based rank of each test target, -1 for a user who has none; memory-mapped."""
    owners: NDArray[np.int64] | None
    """(n,) user of each target; None if every user of the dataset has one, in order."""
    cost: dict[str, Any]
    best_epoch: int | None
    """Counted from 1; None if nothing was trained in epochs."""
    epochs: int | None
    settings: dict[str, Any]
    """The flags that all seeds of a group share; empty where the folder has no config.json."""
    vectors: str | None
    """sha256 of the item vectors that the run read; "" for a run that read none, None where it does not say."""

    @property
    def users(self) -> NDArray[np.int64]:
        """The users who have a test target, ascending."""
        return np.flatnonzero(self.ranks >= 0) if self.owners is None else np.unique(self.owners)

    def among(self, sample: "FinishedRun") -> "FinishedRun":
        """Return the run as if it had been tested on the users of another one alone, each of whom has one target."""
        ranks = np.where(sample.ranks >= 0, self.ranks, -1)
        run = replace(self, ranks=ranks, protocol=sample.protocol, test={})
        names = [name for name in self.test if name == "MRR" or name.startswith(("NDCG@", "Recall@"))]
        test = {name: float(run.by_user(name).mean()) for name in names}
        return replace(run, test=test | {"users": len(run.users)})

    @property
    def first_validated(self) -> int:
        """The first epoch after which the run was validated."""
        every = self.settings.get("eval_every", 1)
        return every if isinstance(every, int) else 1

    def by_user(self, metric: str) -> NDArray[np.float64]:
        """Return one metric for each of `users`, over a user's targets: their mean, unless all are relevant at once."""
        values = user_metric(self.ranks[self.ranks >= 0], metric)
        if self.owners is None:
            return values
        if self.protocol.get("relevant") == "all":
            return join_by_user(metric, values, self.owners)
        return mean_by_user(values, self.owners)


def user_metric(ranks: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
    """Return one metric per rank, float64 of the ranks' shape.

    Args:
        ranks: 0-based ranks.
        metric: "NDCG@k", "Recall@k" with any k, or "MRR".

    Raises:
        UserError: If the metric is another one.
    """
    if metric == "MRR":
        return reciprocal_rank(ranks)
    match = re.fullmatch(r"(NDCG|Recall)@([1-9]\d*)", metric)
    if match is None:
        raise UserError(f"unknown metric {metric!r}: expected NDCG@k, Recall@k or MRR, for example NDCG@10")
    return _PER_USER[match[1]](ranks, int(match[2]))


def name_run(folder: Path) -> str:
    """Return "family/dataset/run name"."""
    return "/".join(folder.parts[-3:])


def find_run_folders(runs_dir: Path, dataset: str) -> tuple[list[Path], list[Path]]:
    """Return the finished and the unfinished run folders of a dataset, sorted.

    Raises:
        MissingFileError: If no run is finished.
    """
    pattern = f"*/{dataset}/*"
    folders = sorted(p for p in runs_dir.glob(pattern) if p.is_dir() and not p.name.startswith("."))
    finished = [p for p in folders if (p / "metrics.json").is_file()]
    unfinished = [p for p in folders if p not in finished and (p / "config.json").is_file()]
    if not finished:
        here = sorted({p.parent.parent.name for p in runs_dir.glob("*/*/*/metrics.json")})
        raise MissingFileError(
            f"no finished run in {runs_dir / pattern} ({len(unfinished)} not finished; there are runs of "
            f"{', '.join(here) or 'no dataset'}). Make one: `bash finetune.sh --dataset {dataset}` in the folder of "
            f"{' or '.join(list_families(ROOT))}, or name another --runs_dir"
        )
    return finished, unfinished


def read_run(folder: Path, seen: Seen = "own") -> FinishedRun:
    """Return one finished run, its ranks checked against its own metrics.

    Args:
        folder: Of the run.
        seen: Which of its tests is asked for.

    Raises:
        MissingFileError: If the ranks are missing.
        UserError: If a file is damaged, ranks, metrics.json and the folder's place contradict each other, or the run
            was not tested so.
    """
    file, repair = folder / "metrics.json", f"delete {folder} and run it again"
    record = DEFAULTS | read_json_object(file, repair)
    _check_fields({"vectors_sha256": None} | record, FIELDS, file)
    _check_fields(record["protocol"], PROTOCOL_FIELDS, file)
    if record["protocol"]["split"] not in get_args(SplitName):
        known = " or ".join(get_args(SplitName))
        raise UserError(f"{file}: 'split' is {record['protocol']['split']!r}, expected {known}: {repair}")
    _check_fields(record["test"], dict.fromkeys(record["test"], _NUMBER), file)
    _check_fields(dict.fromkeys(COST_KEYS) | record["cost"], dict.fromkeys(COST_KEYS, _NUMBER + _NONE), file)
    run = FinishedRun(
        folder=folder,
        family=record["family"],
        group=record["group"],
        seed=record["seed"],
        protocol=record["protocol"],
        test=record["test"],
        ranks=_read_numbers(folder / RANKS),
        owners=_read_numbers(owners) if (owners := folder / USERS).exists() else None,
        cost=record["cost"],
        best_epoch=_read_epoch(record["best_epoch"]),
        epochs=record["epochs"],
        settings=_read_settings(folder / "config.json"),
        vectors=(record["vectors_sha256"] or "") if "vectors_sha256" in record else None,
    )
    place = (record["family"], record["dataset"])
    expected = (folder.parent.parent.name, folder.parent.name)
    if place != expected:
        raise UserError(f"{file} says {'/'.join(place)} but lies under {'/'.join(expected)}: move the folder back")
    _check_ranks(run)
    _check_metrics(run)
    return run if seen == "own" or run.protocol["filter_seen"] == (seen == "left_out") else _other_test(run, record)


def can_read(folder: Path, seen: Seen) -> bool:
    """Return whether a finished run has the test asked for."""
    if seen == "own":
        return True
    record = read_json_object(folder / "metrics.json", f"delete {folder} and run it again", {"protocol": dict})
    return "other" in record or record["protocol"].get("filter_seen") == (seen == "left_out")


def _other_test(run: FinishedRun, record: dict[str, Any]) -> FinishedRun:
    """Return a run as its other test found it."""
    file = run.folder / "metrics.json"
    if not isinstance(record.get("other"), dict):
        raise UserError(
            f"{run.folder} was tested in one way alone, as runs of earlier versions and those of given candidates are: "
            f"delete {file} and run it again with --resume, which tests it, or leave it out"
        )
    _check_fields(record["other"], dict.fromkeys(record["other"], _NUMBER), file)
    protocol = run.protocol | {"filter_seen": not run.protocol["filter_seen"]}
    other = replace(run, protocol=protocol, test=record["other"], ranks=_read_numbers(run.folder / OTHER_RANKS))
    if not np.array_equal(other.ranks < 0, run.ranks < 0):
        raise UserError(f"{run.folder} has two tests of different users: delete it and run it again")
    _check_ranks(other, OTHER_RANKS)
    _check_metrics(other, OTHER_RANKS)
    return other


def read_runs(folders: Sequence[Path], seen: Seen = "own") -> list[FinishedRun]:
    """Return finished runs, of which those are left out that were not tested as asked for, checked to be comparable.

    Raises:
        UserError: If two runs claim the same family, group, seed and protocol, if those of one group differ in more
            than the seed or started from different item vectors, or if runs of one protocol were tested on different
            users.
    """
    runs = [read_run(folder, seen) for folder in folders if can_read(folder, seen)]
    if folders and not runs:
        raise UserError(f"no run was tested with --seen {seen}: runs that rank all items are, of this version on")
    if len(runs) < len(folders):
        log.warning("left out: %d runs that were not tested with --seen %s", len(folders) - len(runs), seen)
    known: dict[tuple[str, ...], FinishedRun] = {}
    first: dict[str, FinishedRun] = {}
    first_seed: dict[tuple[str, ...], FinishedRun] = {}
    first_vectors: dict[tuple[str, ...], FinishedRun] = {}
    for run in runs:
        protocol = json.dumps(run.protocol, sort_keys=True)
        twin = known.setdefault((protocol, run.family, run.group, str(run.seed)), run)
        if twin is not run:
            raise UserError(
                f"{twin.folder} and {run.folder} are both {run.family} {run.group} with seed {run.seed}: "
                "delete one, or give it another --run_name"
            )
        _check_settings(first_seed.setdefault((protocol, run.family, run.group), run), run)
        if run.vectors is not None:
            _check_vectors(first_vectors.setdefault((protocol, run.family, run.group), run), run)
        other = first.setdefault(protocol, run)
        if not _same_targets(run, other):
            raise UserError(
                f"{run.folder} was tested on other users than {other.folder} "
                f"({len(run.users)} of {len(run.ranks)} against {len(other.users)} of {len(other.ranks)}) "
                "although both name the same protocol: run the older one again"
            )
    return runs


def _check_settings(one: FinishedRun, other: FinishedRun) -> None:
    """Refuse seeds of one group that were run with different flags."""
    # Earlier versions may lack a flag.
    both = one.settings.keys() & other.settings.keys()
    differing = [
        key
        for key in both
        if one.settings[key] != other.settings[key] and _without_seed(one, key) != _without_seed(other, key)
    ]
    if differing:
        told = ", ".join(f"{key} {one.settings[key]} and {other.settings[key]}" for key in sorted(differing))
        raise UserError(
            f"{one.folder} and {other.folder} differ in more than the seed ({told}), so they are not two seeds of "
            f"{one.family} {one.group}: move one away, or run it again with a --run_name of its own"
        )


def _check_fields(values: dict[str, Any], kinds: Kinds, file: Path) -> None:
    """Refuse a metrics.json with a field of another type, or with a number that no float can hold."""
    repair = f"delete {file.parent} and run it again"
    for key, expected in kinds.items():
        check_field(values, key, expected, file, repair)
        if isinstance(values[key], int) and abs(values[key]) >= 1 << 63:
            raise UserError(f"{file}: {key!r} is a number of {len(str(values[key]))} digits: {repair}")


def _without_seed(run: FinishedRun, key: str) -> Any:
    """Return a setting, less the run's own seed at its end: a seed may start from a run of that seed."""
    value = run.settings[key]
    return value.removesuffix(f"-seed{run.seed}") if isinstance(value, str) else value


def _check_vectors(one: FinishedRun, other: FinishedRun) -> None:
    """Refuse seeds of one group that started from different item vectors, unless each names vectors of its seed."""
    if one.vectors != other.vectors and not (_has_vectors_of_seed(one) and _has_vectors_of_seed(other)):
        said = [f"sha256 {run.vectors[:12]}" if run.vectors else "none" for run in (one, other)]
        raise UserError(
            f"{one.folder} and {other.folder} read different item vectors ({said[0]} and {said[1]}), so they are not "
            f"two seeds of {one.family} {one.group}: the file of that name was made again in between. Run the older "
            f"one again with --overwrite, run the newer ones with a --run_name of their own, or leave runs out: "
            f"--leave_out {name_run(one.folder)}"
        )


def _has_vectors_of_seed(run: FinishedRun) -> bool:
    """Return whether the vectors' name ends as the run's does, such as mine-seed43 of a run with seed 43."""
    return any(_without_seed(run, flag) != run.settings[flag] for flag in ("init_type", "text") if flag in run.settings)


def _read_epoch(recorded: int | None) -> int | None:
    """Return the best epoch, counted from 1; earlier versions counted from 0, with -1 for none."""
    return None if recorded is None or recorded < 0 else max(recorded, 1)


def _read_settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    settings = CHANGED_DEFAULTS | read_json_object(file, f"delete {file.parent} and run it again", finite=True)
    # Only the name of a file or folder counts: the same runs may have been made in several places.
    return {
        key: Path(value).name if isinstance(value, str) else value
        for key, value in settings.items()
        if key not in NO_SETTINGS
    }


def _same_targets(run: FinishedRun, other: FinishedRun) -> bool:
    """Return whether two runs ranked targets of the same users."""
    if run.owners is None or other.owners is None:
        return run.owners is other.owners and np.array_equal(run.ranks < 0, other.ranks < 0)
    return np.array_equal(run.owners, other.owners)


def _read_numbers(file: Path) -> NDArray[np.int64]:
    repair = f"delete {file.parent} and run it again"
    numbers = read_array(file, repair, mapped=True)
    if numbers.ndim != 1 or numbers.dtype != np.int64:
        raise UserError(f"{file} is {numbers.dtype} {numbers.shape}, expected int64 (targets,): {repair}")
    return numbers


def _check_ranks(run: FinishedRun, name: str = RANKS) -> None:
    """Refuse ranks outside [0, candidates), runs without a tested user, and users that are not the ranks'."""
    sampled = int(run.protocol["sample_size"])
    candidates = sampled + 1 if sampled > 0 else int(run.protocol["num_items"])
    file = run.folder / name
    if run.owners is not None and (len(run.owners) != len(run.ranks) or np.any(run.ranks < 0)):
        raise UserError(f"{file} and users-test.npy are not of one test: delete {run.folder} and run it again")
    if not len(run.users):
        raise UserError(f"{file} ranks no user: the test was not run; delete {run.folder} and run it again")
    low, high = int(run.ranks.min()), int(run.ranks.max())
    if low < -1 or high >= candidates:
        raise UserError(
            f"{file} has ranks from {low} to {high}, expected 0 to {candidates - 1} ({candidates} "
            "candidates) or -1 for a user without a test target"
        )


def _check_metrics(run: FinishedRun, name: str = RANKS) -> None:
    """Refuse metrics.json if it contradicts the ranks or itself."""
    file = run.folder / "metrics.json"
    recorded = {k: v for k, v in run.test.items() if k == "MRR" or re.fullmatch(r"(NDCG|Recall)@\d+", k)}
    for k, value in recorded.items():
        # Not `abs(...) > TOLERANCE`: that would let NaN pass.
        if not abs((computed := float(run.by_user(k).mean())) - value) <= TOLERANCE:
            raise UserError(
                f"{file} says test {k} = {value:.8f} but its {name} gives {computed:.8f}: the two "
                f"files come from different tests; delete {run.folder} and run it again"
            )
    lacking = [k for k in ("NDCG@10", "Recall@10", "MRR") if k not in recorded]
    if lacking:
        raise UserError(f"{file} has no test {lacking}: delete {run.folder} and run it again")
    if recorded["NDCG@10"] > recorded["Recall@10"] + TOLERANCE:
        raise UserError(f"{file} has NDCG@10 {recorded['NDCG@10']} above Recall@10 {recorded['Recall@10']}")
    if run.test.get("users", len(run.users)) != len(run.users):
        raise UserError(f"{file} says {run.test['users']} test users but {name} ranks {len(run.users)}")
