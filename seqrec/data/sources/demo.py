"""A made-up shop, seeded and of any size: it proves that the machinery runs, never that a method is good.

The catalogue. Goods come in series ("Copper Lantern walnut coffee grinder"), each made by one brand, of one kind of
good in one of 12 departments, in one of 12 finishes. A series holds 8 to 16 items in the order in which people come to
need them, and titles say so: the good, a holder, cleaning tablets, refills, a replacement part, the next size, a travel
case ..., and last a "mark II" that appears late. Series names pair two of 40 x 40 words: the words are shared by many
items in all departments, the pair belongs to one series.

The users. Each likes 2 departments and 2 finishes. At each step a user
- goes on within the series just bought from, with probability `chain` (0.55): to the next item of it with probability
  `habit` (0.3), else to any of it;
- or buys from a series of a liked department, drawn by popularity, with probability 1 - chain - noise: four times in
  five in a liked finish;
- or buys anything, series drawn by popularity, with probability `noise` (0.15).
A new series begins with the good itself with probability 0.3, else with any of its items. Popularity of series falls as
rank ** -`skew` (0.6). Users start at a random moment of two years and return after 12 days in the mean; late items
appear at nine tenths of the two years, so that most have few buyers before the last days: these are the cold items.
Histories have at least 3 items, `mean_length` (8) in the mean, 50 at most; their lengths are geometric.

Why text helps. With 8 x 1,500 interactions over 800 items an item is bought about 15 times in all and half of the
items at most 10 times, while any of a dozen items may follow it: from ids alone each pair has to be seen. What makes
them belong together (the same series name; the next stage; the same department and finish) is one rule for all items
and stands in every title, also in titles that nobody has bought yet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources import demo_words
from seqrec.data.sources.demo_words import LATE, STAGES

KINDS = {department: goods.split("|") for department, goods in demo_words.KINDS.items()}
FINISHES = demo_words.FINISHES.split("|")
FIRST, SECOND = demo_words.FIRST.split(), demo_words.SECOND.split()
BRAND_HEADS, BRAND_TAILS = demo_words.BRAND_HEADS.split(), demo_words.BRAND_TAILS.split()
DAY = 86_400
START = 1_577_836_800  # 2020-01-01, UTC
YEARS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo(Preparation):
    """A made-up shop that needs no files."""

    kind: ClassVar[str] = "demo"

    name: str = "demo"
    num_users: int = 1500
    """Users."""
    num_items: int = 800
    """Items on offer; the few that nobody buys are left out of the dataset."""
    mean_length: float = 8.0
    """Mean number of interactions of a user, above 3."""
    chain: float = 0.55
    """Probability of going on within a series."""
    habit: float = 0.3
    """Probability that going on within a series means its next item, rather than any of it."""
    noise: float = 0.15
    """Probability of buying anything at all."""
    skew: float = 0.6
    """Popularity falls as rank ** -skew."""

    def __post_init__(self) -> None:
        super(Demo, self).__post_init__()
        if self.num_users < 1 or self.num_items < 100:
            raise UserError(
                f"a demo needs --num_users >= 1 and --num_items >= 100, got {self.num_users} and {self.num_items}"
            )
        if self.mean_length <= 3 or min(self.chain, self.noise) < 0 or self.chain + self.noise > 1:
            raise UserError("a demo needs --mean_length > 3, and --chain and --noise of 0 or more, at most 1 together")

    def read(self, scratch: Path) -> RawData:
        """Return the shop's sales and catalogue."""
        rng = np.random.default_rng(self.seed)
        shop = make_catalogue(self.num_items, self.skew, rng)
        user, item, time = simulate(shop, self, rng)
        names = shop.items["raw_id"]
        frame = pl.DataFrame({"user": user, "item": names.gather(item), "timestamp": time})
        frame = frame.with_columns(pl.format("U{}", pl.col("user").cast(pl.String).str.zfill(6)).alias("user"))
        # A shop's log is in order of time, whoever buys.
        return RawData(frame.sort("timestamp", maintain_order=True).lazy(), shop.items, origin="the demo shop")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items by series: series s holds the items starts[s]:ends[s] in the order in which they are needed."""

    items: pl.DataFrame
    """raw_id, title, brand, category."""
    series: NDArray[np.int64]
    """(N,) the item's series."""
    starts: NDArray[np.int64]
    """(S,)"""
    ends: NDArray[np.int64]
    """(S,)"""
    late: NDArray[np.bool_]
    """(N,) whether an item appears late."""
    department: NDArray[np.int64]
    """(S,) in 0..11."""
    finish: NDArray[np.int64]
    """(S,) in 0..11."""
    weight: NDArray[np.float64]
    """(S,) popularity, sums to 1."""


def make_catalogue(num_items: int, skew: float, rng: np.random.Generator) -> Catalogue:
    """Return a catalogue of `num_items` items."""
    sizes = rng.integers(8, 17, size=num_items // 8 + 1)
    ends = np.cumsum(sizes)
    ends = np.minimum(ends[: int(np.searchsorted(ends, num_items)) + 1], num_items)
    starts = np.concatenate([[0], ends[:-1]])
    num_series = len(starts)
    series = np.repeat(np.arange(num_series), ends - starts)
    stage = np.arange(num_items) - starts[series]
    late = (np.arange(num_items) == ends[series] - 1) & (stage >= 4)
    department = rng.integers(len(KINDS), size=num_series)
    finish = rng.integers(len(FINISHES), size=num_series)
    weight = np.arange(1, num_series + 1, dtype=np.float64) ** -skew
    weight = rng.permutation(weight / weight.sum())
    items = _describe(series, stage, late, department, finish, rng)
    return Catalogue(items, series, starts, ends, late, department, finish, weight)


def _describe(
    series: NDArray[np.int64],
    stage: NDArray[np.int64],
    late: NDArray[np.bool_],
    department: NDArray[np.int64],
    finish: NDArray[np.int64],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Return raw_id, title, brand and category of the items."""
    num_series, num_items = len(department), len(series)
    kinds = pl.Series([kind for goods in KINDS.values() for kind in goods])
    pairs = rng.permutation(max(len(FIRST) * len(SECOND), num_series))[:num_series]
    first, second = pairs % len(FIRST), pairs // len(FIRST) % len(SECOND)
    edition = pairs // (len(FIRST) * len(SECOND))
    brand = rng.integers(len(BRAND_HEADS) * len(BRAND_TAILS), size=num_series)
    kind = department * 5 + rng.integers(5, size=num_series)
    table = pl.DataFrame(
        {
            "series": pl.Series(FIRST).gather(first) + " " + pl.Series(SECOND).gather(second),
            "edition": pl.Series(edition),
            "kind": kinds.gather(kind),
            "department": pl.Series(list(KINDS)).gather(department),
            "finish": pl.Series(FINISHES).gather(finish),
            "brand": pl.Series(BRAND_HEADS).gather(brand % len(BRAND_HEADS))
            + pl.Series(BRAND_TAILS).gather(brand // len(BRAND_HEADS)),
        }
    ).with_columns(
        good=pl.when(pl.col("edition") > 0)
        .then(pl.format("{} {} {} {}", "series", "edition", "finish", "kind"))
        .otherwise(pl.format("{} {} {}", "series", "finish", "kind"))
    )
    forms = pl.Series([*STAGES, LATE]).gather(np.where(late, len(STAGES), np.minimum(stage, len(STAGES) - 1)))
    rows = table[series].with_columns(pl.Series("form", forms), pl.Series("code", rng.permutation(num_items)))
    return rows.select(
        raw_id=pl.format("D{}", pl.col("code").cast(pl.String).str.zfill(6)),
        title=pl.col("form").str.splitn("{good}", 2).struct.field("field_0")
        + pl.col("good")
        + pl.col("form").str.splitn("{good}", 2).struct.field("field_1"),
        brand="brand",
        category=pl.format("{} {}", "department", "kind"),
    )


def simulate(
    shop: Catalogue, config: Demo, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the (E,) users, items and times (seconds) of all purchases, by user and then time."""
    num_users = config.num_users
    lengths = np.minimum(2 + rng.geometric(1 / (config.mean_length - 2), size=num_users), 50)
    tastes = rng.integers(len(KINDS), size=(num_users, 2)), rng.integers(12, size=(num_users, 2))
    begins = rng.uniform(0, YEARS * 365 * DAY, size=num_users)
    gaps = rng.exponential(12 * DAY, size=(num_users, int(lengths.max())))
    times = (START + begins[:, None] + np.cumsum(gaps, axis=1)).astype(np.int64)
    launch = START + int(0.9 * YEARS * 365 * DAY)
    items = np.full((num_users, int(lengths.max())), -1, dtype=np.int64)
    draw = _SeriesDraw(shop)
    for step in range(items.shape[1]):  # a loop over positions, never over users
        active = np.flatnonzero(lengths > step)
        before = items[active, step - 1] if step else None
        chosen = _next_items(shop, config, draw, (tastes[0][active], tastes[1][active]), before, rng)
        early = shop.late[chosen] & (times[active, step] < launch)
        items[active, step] = chosen - early  # the item before it in the series, which is never late
    bought = items >= 0
    users = np.repeat(np.arange(num_users), bought.sum(axis=1))
    return users, items[bought], times[bought]


def _next_items(
    shop: Catalogue,
    config: Demo,
    draw: "_SeriesDraw",
    tastes: tuple[NDArray[np.int64], NDArray[np.int64]],
    before: NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the (A,) items that A users buy after the (A,) items before, None at the first step."""
    count = len(tastes[0])
    choice, liked, deviate = rng.random(count), rng.integers(2, size=(count, 2)), rng.random(count)
    rows = np.arange(count)
    department, finish = tastes[0][rows, liked[:, 0]], tastes[1][rows, liked[:, 1]]
    by_taste = draw.liked(department, finish, deviate < 0.8, rng)
    series = np.where(choice < config.noise, draw.anything(count, rng), by_taste)
    size = shop.ends[series] - shop.starts[series]
    # A new series mostly begins with the good itself.
    item = shop.starts[series] + np.where(rng.random(count) < 0.3, 0, rng.integers(size))
    if before is None:
        return item
    start, end = shop.starts[shop.series[before]], shop.ends[shop.series[before]]
    follow = np.where(rng.random(count) < config.habit, before + 1, rng.integers(start, end))
    stays = (choice > 1 - config.chain) & (follow < end) & (follow != before)
    return np.where(stays, follow, item)


class _SeriesDraw:
    """Draws series by popularity: among all, those of a department, or those of a department and a finish."""

    def __init__(self, shop: Catalogue) -> None:
        group = shop.department * 12 + shop.finish
        self.order = np.argsort(group, kind="stable")
        self.total = np.concatenate([[0.0], np.cumsum(shop.weight[self.order])])
        self.bounds = np.searchsorted(group[self.order], np.arange(len(KINDS) * 12 + 1))

    def anything(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return (count,) series."""
        return self._between(np.zeros(count), np.full(count, self.total[-1]), rng)

    def liked(
        self,
        department: NDArray[np.int64],
        finish: NDArray[np.int64],
        exact: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Return (A,) series of the (A,) departments, where exact and on offer in that finish."""
        group = department * 12 + finish
        low, high = self.total[self.bounds[group]], self.total[self.bounds[group + 1]]
        wide_low, wide_high = self.total[self.bounds[department * 12]], self.total[self.bounds[department * 12 + 12]]
        exact = exact & (high > low)
        return self._between(np.where(exact, low, wide_low), np.where(exact, high, wide_high), rng)

    def _between(
        self, low: NDArray[np.float64], high: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        places = np.searchsorted(self.total, low + rng.random(len(low)) * (high - low), side="right") - 1
        return self.order[np.minimum(places, len(self.order) - 1)]
