"""Made-up users whose lasting interests show in old events alone: what is lost of a history is lost of them.

Items belong to topics; within one, popularity falls as 1 / rank. A user has `interests` topics of `num_topics`. Of the
`old` first events most (seven in ten) are of these, the others of any topic. Of the `recent` ones after them none is:
they are sessions of five events, each of another topic. But at interests - 2 moments among them, and at the last two
events, which leave-one-out holds out, the user comes back to an interest with probability `share`, each time to another
one, so that earlier returns do not tell the next.

With `share` 0 the recent events say all that can be known; the larger it is, the more of the targets only old ones
foretell.
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
    """Probability that a target comes from a lasting interest."""
    num_users: int = 2000
    """Users."""
    num_topics: int = 60
    """Topics of items."""
    topic_size: int = 25
    """Items of a topic."""
    interests: int = 6
    """Lasting interests of a user."""
    old: int = 96
    """Events of a user that show them."""
    recent: int = 32
    """Events after these, before the two that are held out."""

    def __post_init__(self) -> None:
        super(Interests, self).__post_init__()
        require_at_least(1, self, "num_users", "topic_size", "old")
        require_at_least(3, self, "interests")
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
        topics, _ = self.draw_topics(rng)
        weight = 1 / np.arange(1, self.topic_size + 1)
        rank = rng.choice(self.topic_size, topics.shape, p=weight / weight.sum())
        item = (topics * self.topic_size + rank).flatten()
        user = np.repeat(np.arange(self.num_users), topics.shape[1])
        frame = pl.DataFrame({"user": user, "item": item}).select(
            pl.format("U{}", pl.col("user").cast(pl.String).str.zfill(6)).alias("user"),
            pl.format("I{}", "item").alias("item"),
        )
        names = pl.DataFrame({"number": np.arange(self.num_topics * self.topic_size)}).select(
            pl.format("I{}", "number").alias("raw_id"),
            pl.format("topic {} item {}", pl.col("number") // self.topic_size, "number").alias("title"),
        )
        return RawData(frame.lazy(), names, origin="the made-up interests")

    def draw_topics(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the topic of each event, (U, old + recent + 2), and each user's interests, (U, interests).

        The last interest is that of the last event, if that is a return, and the one before it that of the one before.
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
        sessions = others[users, rng.integers(0, self.num_topics - m, (U, -(-last // SESSION)))]
        recent = np.repeat(sessions, SESSION, axis=1)[:, :last]
        moments = np.argsort(rng.random((U, self.recent)), axis=1)[:, : m - 2]
        moments = np.concatenate([moments, np.tile([last - 2, last - 1], (U, 1))], axis=1)  # (U, m)
        comes_back = rng.random((U, m)) < self.share
        recent[users, moments] = np.where(comes_back, lasting, recent[users, moments])
        return np.concatenate([old, recent], axis=1), lasting
