"""Runs that deserve a look before their group's mean is believed. Shapes: S seeds of a group, U users."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqrec.comparison.results import FinishedRun

FLOORS = ("popularity", "recency")
"""The names of runs that any trained model should beat."""
FAR_SHARE = 0.1
"""A run is far from its group's median where it is off by more than this share of it ..."""
FAR_ERRORS = 3
"""... and its difference to the group's other runs by more than this number of standard errors over the users."""
Key = tuple[str, str]
"""Family and group."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A suspicious finished run, with the reason."""

    run: FinishedRun
    reason: str


def find_doubts(
    groups: Mapping[Key, list[FinishedRun]], values: Mapping[Key, NDArray[np.float64]], metric: str
) -> tuple[Doubt, ...]:
    """Return the runs whose best epoch was the first, that are below a baseline, or that are far from their group.

    Args:
        groups: The runs of each group of one protocol.
        values: Their metric by user, (S, U) for each group.
        metric: Its name, for the reasons.
    """
    floors = [
        (float(mean), group) for (_, group), own in values.items() if group in FLOORS for mean in own.mean(axis=1)
    ]
    floor, floor_name = max(floors, default=(-np.inf, ""))
    baselines = {family for family, group in groups if group in FLOORS}
    doubts = []
    for key, runs in groups.items():
        means, median = values[key].mean(axis=1), float(np.median(values[key].mean(axis=1)))
        for place, (run, mean) in enumerate(zip(runs, means.tolist(), strict=True)):
            if run.best_epoch is not None and run.best_epoch <= run.first_validated < (run.epochs or 0):
                doubts.append(Doubt(run, f"its best of {run.epochs} epochs was the first that was validated"))
            if mean < floor and run.family not in baselines:
                doubts.append(Doubt(run, f"{metric} {mean:.4f} is below the baseline {floor_name}, {floor:.4f}"))
            if _is_far(values[key], place, median):
                doubts.append(
                    Doubt(run, f"{metric} {mean:.4f} is far from {median:.4f}, the median of its {len(runs)} seeds")
                )
    return tuple(doubts)


def _is_far(own: NDArray[np.float64], place: int, median: float) -> bool:
    """Return whether one of (S, U) runs is far from the group's median; a mean would follow the outlier."""
    seeds, users = own.shape
    if seeds < 2 or users < 2:
        return False
    to_others = own[place] - np.delete(own, place, axis=0).mean(axis=0)
    error = to_others.std(ddof=1) / np.sqrt(users)
    return bool(abs(own[place].mean() - median) > FAR_SHARE * median and abs(to_others.mean()) > FAR_ERRORS * error)
