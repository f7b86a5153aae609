"""Made-up users whose lasting interests show in old events alone: what is lost of a history is lost of them.

Items belong to topics; within one, popularity falls as 1 / rank. A user has `interests` topics of `num_topics`. Of the
`old` first events most (seven in ten) are of these, the others of any topic. Of the `recent` ones after them none is:
they are sessions of five events, each of another topic, the first one cut at random. Now and then, with probability
`share` at each of interests / 2 moments, a bell rings, an item of its own, and the two events after it return to two
interests to which no return has gone before, so that earlier returns do not tell the next. The first of the two is an
item that every topic has for this alone, so that the second one is due after it as the first one after the bell. The
last of these moments is the user's end: its two returns are what leave-one-out holds out.

So recent events tell when a return is due, and old ones alone to what. With `share` 0 there is no bell, and the recent
events say all that can be known.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.checks import require_at_least
from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData

SESSION = 5
OF_INTERESTS = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests(Preparation):
    """Made-up users with lasting interests that recent events do not show; needs no files."""

    kind: ClassVar[str] = "interests"

    name: str = "interests"
    share: float = 0.5
    """Probability that targets come from lasting interests."""
    num_users: int = 2000
    """Users."""
    num_topics: int = 60
    """Topics of items."""
    topic_size: int = 25
    """Items of a topic."""
    interests: int = 6
    """Lasting interests of a user, an even number."""
    old: int = 96
    """Events of a user that show them."""
    recent: int = 32
    """Events after these, before the two that are held out."""

    def __post_init__(self) -> None:
        super(Interests, self).__post_init__()
        require_at_least(1, self, "num_users", "topic_size", "old")
        require_at_least(4, self, "interests")
        if self.interests % 2:
            raise UserError(f"--interests must be even, as returns go to two at a time, got {self.interests}")
        if not 0 <= self.share <= 1:
            raise UserError(f"--share must lie in [0, 1], got {self.share}")
        if self.num_topics < 2 * self.interests:
            raise UserError(
                f"--num_topics {self.num_topics} must be at least {2 * self.interests}, twice --interests, so that "
                "sessions have topics of their own"
            )
        if self.recent < 2 * self.interests:
            raise UserError(f"--recent {self.recent} must be at least {2 * self.interests}, twice --interests")

    def read(self, scratch: Path) -> RawData:
        """Return the events, and items with their topics as text."""
        rng = np.random.default_rng(self.seed)
        topics, _, bells = self.draw_topics(rng)
        firsts = np.pad(bells, ((0, 0), (1, 0)))[:, :-1]
        weight = 1 / np.arange(1, self.topic_size + 1)
        rank = rng.choice(self.topic_size, topics.shape, p=weight / weight.sum())
        bell = self.num_topics * self.topic_size
        item = np.where(firsts, bell + 1 + topics, topics * self.topic_size + rank)
        item = np.where(bells, bell, item).flatten()
        user = np.repeat(np.arange(self.num_users), topics.shape[1])
        frame = pl.DataFrame({"user": user, "item": item}).select(
            pl.format("U{}", pl.col("user").cast(pl.String).str.zfill(6)).alias("user"),
            pl.format("I{}", "item").alias("item"),
        )
        number = pl.col("number")
        names = pl.DataFrame({"number": np.arange(bell + 1 + self.num_topics)}).select(
            pl.format("I{}", number).alias("raw_id"),
            pl.when(number < bell)
            .then(pl.format("topic {} item {}", number // self.topic_size, number))
            .when(number == bell)
            .then(pl.lit("bell"))
            .otherwise(pl.format("topic {} once more", number - bell - 1))
            .alias("title"),
        )
        return RawData(frame.lazy(), names, origin="the made-up interests")

    def draw_topics(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return the topic of each event, each user's interests, and which events are bells.

        Shapes: (U, old + recent + 2), (U, interests), and (U, old + recent + 2). The last two interests are those to
        which the last two events return, if they do.
        """
        U, m = self.num_users, self.interests
        own = np.argsort(rng.random((U, self.num_topics)), axis=1)  # the first m are interests
        lasting, others = own[:, :m], own[:, m:]
        users = np.arange(U)[:, None]
        old = np.where(
            rng.random((U, self.old)) < OF_INTERESTS,
            lasting[users, rng.integers(0, m, (U, self.old))],
            rng.integers(0, self.num_topics, (U, self.old)),
        )
        last = self.recent + 2
        sessions = others[users, rng.integers(0, self.num_topics - m, (U, last // SESSION + 2))]
        phase = rng.integers(0, SESSION, (U, 1))
        recent = np.take_along_axis(sessions, (np.arange(last) + phase) // SESSION, axis=1)
        bells = np.zeros((U, last), dtype=bool)
        pairs = m // 2
        room = (self.recent - 1) // max(pairs - 1, 1)  # events among which a moment of training lies
        for pair in range(pairs):
            is_last = pair == pairs - 1
            start = np.full(U, self.recent - 1) if is_last else pair * room + rng.integers(0, room - 2, U)
            comes_back = np.flatnonzero(rng.random(U) < self.share)
            bells[comes_back, start[comes_back]] = True
            for step in (0, 1):
                recent[comes_back, start[comes_back] + 1 + step] = lasting[comes_back, 2 * pair + step]
        return np.concatenate([old, recent], axis=1), lasting, np.pad(bells, ((0, 0), (self.old, 0)))
