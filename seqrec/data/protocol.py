"""Evaluation options: what is held out, and what it is ranked against."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError
from seqrec.data.candidate_files import describe_candidates
from seqrec.data.dataset import Dataset as PreparedDataset
from seqrec.data.fresh import FreshItems
from seqrec.data.splits import Split, SplitName, TimeTarget, global_time_split, leave_one_out, users_apart

CANDIDATE_SEED = 98765
KS = (1, 5, 10, 20, 50)
"""Cutoffs of NDCG@k and Recall@k."""
WINDOW = {"last_k_eval_test": 2, "item_start_position": 0, "item_end_position": None}
"""Options of what leave_one_out uses and holds out, recorded where they are not these."""


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """What is held out and how it is ranked; the same for every family and every training loss."""

    split: SplitName = "leave_one_out"
    """Split: leave_one_out (each user's last two items), global_time (everything after one moment) or users (the last
    item of a tenth of the users, of whom nothing is trained on, and of another tenth for validation)."""
    split_quantile: float = 0.9
    """Quantile of the timestamps at which global_time splits, applied again for validation."""
    time_target: TimeTarget = "last"
    """Target of a user under global_time: last, first or random event after the moment, or successive (each in turn;
    the user counts with the mean)."""
    last_k_eval_test: int = 2
    """Under leave_one_out, the validation target is this event from the end, the test target the one at half of it:
    with 2, the last one. What comes before the former trains."""
    item_start_position: int = 0
    """Under leave_one_out, first of each user's events that are used, from 0; a negative number counts from the
    end."""
    item_end_position: int | None = None
    """Under leave_one_out, the event before which the used ones end, in the same way; 0 or none uses all."""
    train_users: int | None = None
    """Users whose events are trained on, by default all; drawn at random, fewer among more. All are evaluated."""
    sample_size: int = -1
    """Negatives sampled per user to rank against; -1 ranks the whole catalogue."""
    candidates: Path | None = None
    """File of each user's negatives to rank against instead (.json or .pkl, see docs/protocol.md)."""
    filter_seen: bool = False
    """Leave out items of the user's history as candidates (full ranking only)."""
    fresh_days: float | None = None
    """Rank against what appeared within so many days before the target and the user had not had by then, and leave out
    targets that appeared earlier; for datasets that say when their items appeared."""
    candidate_seed: int = CANDIDATE_SEED
    """Seed of the sampled negatives: they depend on it and the user alone."""
    metric_ks: tuple[int, ...] = KS
    """Cutoffs of NDCG@k and Recall@k; must contain 10."""

    def __post_init__(self) -> None:
        if self.sample_size == 0 or self.sample_size < -1:
            raise UserError(f"--sample_size must be K > 0 negatives, or -1 for all items, got {self.sample_size}")
        if self.sample_size < 0 and self.candidate_seed != CANDIDATE_SEED:
            raise UserError("--candidate_seed is for --sample_size K: the whole catalogue is not drawn")
        require_at_least(1, self, "train_users")
        if 10 not in self.metric_ks or min(self.metric_ks) < 1:
            raise UserError(
                f"--metric_ks must be at least 1 and hold 10, which tables are made of, got {self.metric_ks}"
            )
        if self.sample_size > 0 and self.filter_seen:
            raise UserError("--filter_seen is for full ranking: sampled negatives never contain seen items")
        if self.candidates is not None:
            if self.sample_size > 0 or self.filter_seen or self.several_targets:
                raise UserError("--candidates FILE is not for --sample_size, --filter_seen or --time_target successive")
            describe_candidates(self.candidates)
        if self.fresh_days is not None:
            require_above(0, self, "fresh_days")
            if self.sample_size > 0 or self.filter_seen or self.candidates is not None:
                raise UserError("--fresh_days says what is ranked: drop --sample_size, --candidates and --filter_seen")
        if not 0 < self.split_quantile < 1:
            raise UserError(f"--split_quantile must lie in (0, 1), got {self.split_quantile}")
        if self.split != "global_time" and (self.split_quantile, self.time_target) != (0.9, "last"):
            raise UserError("--split_quantile and --time_target are for --split global_time")
        if self.last_k_eval_test < 2:
            raise UserError(f"--last_k_eval_test must be at least 2, got {self.last_k_eval_test}")
        if self.split != "leave_one_out" and self._window != tuple(WINDOW.values()):
            raise UserError(
                "--last_k_eval_test, --item_start_position and --item_end_position are for --split leave_one_out"
            )

    def hold_out(self, dataset: PreparedDataset) -> Split:
        """Return the split of a dataset."""
        split = self._split(dataset)
        if self.train_users is not None:
            drawn = np.random.default_rng(0).permutation(np.unique(split.train.users))[: self.train_users]
            split = replace(split, train=split.train.select(np.isin(split.train.users, drawn)))
        if self.fresh_days is None:
            return split
        fresh = FreshItems.of(dataset, self.fresh_days)
        return replace(split, valid=fresh.keep(split.valid), test=fresh.keep(split.test))

    def _split(self, dataset: PreparedDataset) -> Split:
        if self.split == "leave_one_out":
            found = leave_one_out(dataset, *self._window)
            if not len(found.test) and self._window != tuple(WINDOW.values()):
                raise UserError(
                    f"no user of {dataset.path} has more than {self.last_k_eval_test} events from "
                    f"{self.item_start_position} to {self.item_end_position or 'the end'}: change "
                    "--item_start_position, --item_end_position or --last_k_eval_test"
                )
            return found
        if self.split == "users":
            return users_apart(dataset)
        return global_time_split(dataset, self.split_quantile, self.time_target)

    @property
    def other(self) -> "EvaluationProtocol | None":
        """The same but for what users have had, by which a test ranks again; None where the candidates are given."""
        is_full = self.sample_size < 0 and self.candidates is None and self.fresh_days is None
        return replace(self, filter_seen=not self.filter_seen) if is_full else None

    @property
    def several_targets(self) -> bool:
        """Whether a user may have more than one."""
        return self.time_target == "successive"

    @property
    def _window(self) -> tuple[int, int, int | None]:
        return self.last_k_eval_test, self.item_start_position, self.item_end_position or None

    @property
    def record(self) -> dict[str, Any]:
        """Return everything that decides a run's ranks, as the run records it."""
        time = {"split_quantile": self.split_quantile, "time_target": self.time_target}
        window = dict(zip(WINDOW, self._window, strict=True))
        return {
            "split": self.split,
            **(window if self._window != tuple(WINDOW.values()) else {}),
            **(time if self.split == "global_time" else {}),
            **({} if self.train_users is None else {"train_users": self.train_users}),
            "sample_size": self.sample_size,
            "filter_seen": self.filter_seen,
            **({} if self.fresh_days is None else {"fresh_days": self.fresh_days}),
            **({"candidate_seed": self.candidate_seed} if self.sample_size > 0 else {}),
            **self._given_candidates,
        }

    @property
    def _given_candidates(self) -> dict[str, Any]:
        if self.candidates is None:
            return {}
        count, digest = describe_candidates(self.candidates)
        return {"sample_size": count, "candidates_sha256": digest}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "EvaluationProtocol":
        """Rebuild the protocol from a run's saved record."""
        told = ("split", "split_quantile", "time_target", "sample_size", "filter_seen", "candidate_seed", "fresh_days")
        names = (*told, "train_users", *WINDOW)
        return cls(**{name: record[name] for name in names if name in record})
