"""What is held out of a dataset: leave-one-out, everything after one moment, or some users.

Shapes: U users, E events, n histories of a view.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset, Histories

SplitName = Literal["leave_one_out", "global_time", "users"]
TimeTarget = Literal["last", "first", "random", "successive"]


@dataclass(frozen=True, slots=True)
class Split:
    """Training histories, and held-out targets, one per evaluated user or several, for validation and for test."""

    name: SplitName
    train: Histories
    valid: Histories
    test: Histories


def leave_one_out(dataset: Dataset, last: int = 2, begin: int = 0, end: int | None = None) -> Split:
    """Return the split whose test target is a user's last event and validation target the one before.

    The rest trains; a user with fewer than 3 events only trains.

    Args:
        dataset: Any.
        last: k >= 2. The k-th event from the end is the validation target, the k // 2-th the test target; what lies
            before the former trains, and a user with k events or fewer only trains.
        begin: First of each user's events that there are, as in `events[begin:end]`: negative numbers count from the
            end.
        end: The event after the last one; None or 0 for none.
    """
    lengths = np.diff(dataset.offsets)

    def place(bound: int) -> NDArray[np.int64]:
        inside: NDArray[np.int64] = np.clip(lengths + bound if bound < 0 else bound, 0, lengths)
        return dataset.offsets[:-1] + inside

    starts = place(begin)
    ends = np.maximum(place(end), starts) if end else dataset.offsets[1:]
    users = np.arange(dataset.num_users)
    held_out = ends - starts > last
    train = dataset.histories(users, starts, np.where(held_out, ends - last, ends))
    valid = dataset.histories(users, starts, ends - last).select(held_out)
    test = dataset.histories(users, starts, ends - last // 2).select(held_out)
    return Split("leave_one_out", train.select(train.lengths > 0), valid, test)


def global_time_split(dataset: Dataset, quantile: float = 0.9, target: TimeTarget = "last", seed: int = 0) -> Split:
    """Return the split at one moment for everybody, so that no training event lies after a test event.

    With T2 the `quantile` of all timestamps and T1 the same quantile of those before T2: events before T1 train;
    one event per user in [T1, T2) is the validation target, one from T2 on the test target: the last, the first or a
    random one, or each in turn (successive). The history is all of the user's events before the target. A target
    without history is left out.

    Args:
        dataset: With timestamps.
        quantile: In (0, 1).
        target: Which event of a user's after the moment; `successive` gives a user a row for each.
        seed: Of random targets.

    Raises:
        UserError: If the dataset has no timestamps, too few different ones, or the quantile is not inside (0, 1).

    Source: https://doi.org/10.1145/3705328.3748164 (time to split).
    """
    if dataset.timestamps is None:
        raise UserError(
            f"{dataset.path} has no timestamps, only order: a global time split is impossible; "
            "use --split leave_one_out"
        )
    if not 0 < quantile < 1:
        raise UserError(f"the quantile of a global time split must lie inside (0, 1), got {quantile}")
    times = dataset.timestamps
    test_from = np.quantile(times, quantile, method="higher")
    before = times[times < test_from]
    if not len(before):
        raise UserError(
            f"{dataset.path}: the {quantile} quantile of the timestamps is the very first moment, so nothing lies "
            "before the test events; use --split leave_one_out"
        )
    valid_from = np.quantile(before, quantile, method="higher")
    starts, ends = dataset.offsets[:-1], dataset.offsets[1:]
    users = np.arange(dataset.num_users)
    valid_at = starts + _count_by_user(times < valid_from, dataset.offsets)
    test_at = starts + _count_by_user(times < test_from, dataset.offsets)
    generator = np.random.default_rng(seed)

    def hold_out(first: NDArray[np.int64], end: NDArray[np.int64]) -> Histories:
        """Return the histories before one event, or each, of each user's in [first, end)."""
        # Before the very first event there is no history: the second is the first that can be a target.
        at = np.maximum(first, starts + 1)
        if target == "successive":
            counts = np.maximum(end - at, 0)
            rows = np.repeat(users, counts)
            place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            return dataset.histories(rows, starts[rows], at[rows] + place)
        if target == "random":
            at = generator.integers(at, np.maximum(end, at + 1))
        elif target == "last":
            at = end - 1
        return dataset.histories(users, starts, at).select((end > first) & (at > starts) & (at < end))

    train = dataset.histories(users, starts, valid_at)
    valid, test = hold_out(valid_at, test_at), hold_out(test_at, ends)
    return Split("global_time", train.select(train.lengths > 0), valid, test)


def users_apart(dataset: Dataset, seed: int = 42) -> Split:
    """Return the split by users: of 80 % every event trains, of 10 % each the last is a validation or a test target.

    Nothing of a validation or test user is trained on. Users with fewer than 2 events are left out there.

    Args:
        dataset: With at least 10 users.
        seed: Of the draw.

    Raises:
        UserError: If there are fewer users.
    """
    U = dataset.num_users
    if U < 10:
        raise UserError(f"{dataset.path} has {U} users, too few to split them 80 : 10 : 10; use --split leave_one_out")
    order = np.random.default_rng(seed).permutation(U)
    first, second = round(0.8 * U), round(0.9 * U)
    starts, ends = dataset.offsets[:-1], dataset.offsets[1:]

    def select(users: NDArray[np.int64], held_out: int) -> Histories:
        users = np.sort(users)
        chosen = dataset.histories(users, starts[users], ends[users] - held_out)
        return chosen.select(chosen.lengths > 0)

    return Split("users", select(order[:first], 0), select(order[first:second], 1), select(order[second:], 1))


def _count_by_user(mask: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (U,) how many of each user's events are set in the (E,) mask."""
    total = np.concatenate(([0], np.cumsum(mask)))
    return total[offsets[1:]] - total[offsets[:-1]]
