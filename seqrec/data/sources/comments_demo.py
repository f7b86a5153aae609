"""Made-up videos and comments with known structure: tastes decide both what is watched and what is answered.

A video is about a thing (of 60) in a format (of 6), and its title says both. A comment under it has a tone (of 8),
which its words show, and names any thing. A user likes `interests` things, one format and two tones. At each visit
they see videos of the last seven days, and watch one by what they like and by how attractive it is in itself; then they
take up, half of the time, one or two of the comments that are there already, by tone and by how good these are in
themselves. So the texts of one stream say what a user will do in that stream, and nothing of the other one; attraction
and quality, which no text shows, make some videos and comments popular.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqrec.basics.checks import require_at_least
from seqrec.data.comments import RawComments
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources import demo_words

THINGS = "|".join(demo_words.KINDS.values()).split("|")
FORMATS = ("{} review", "repairing a {}", "unboxing a {}", "{} mistakes", "history of the {}", "which {}?")
TONES = (
    ("where did you get this {}?", "does the {} work without a manual?", "which size of {} is that?"),
    ("my cat has stolen the {} again", "the {} is the real hero here", "nobody expected the {}"),
    ("best {} video so far, thank you", "this made my day, lovely {}", "so well explained, I love my {} now"),
    ("too long, I fell asleep at the {}", "this {} broke after a week", "I want my money back for the {}"),
    ("clean the {} with warm water first", "tip: put oil on the {} twice a year", "use the {} at half speed"),
    ("my grandmother had such a {}", "we had this {} in the old house", "it reminds me of the {} of my childhood"),
    ("no, that is not how a {} works", "wrong, every {} needs two of these", "I disagree about the {}"),
    ("first!", "who watches this in winter?", "here before a million views"),
)
DAY = 86_400
START = 1_704_067_200  # 2024-01-01, UTC
DAYS, FRESH = 60, 7
SHOWN = 144
"""Videos of the last days that a user sees at a visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentsDemo(Preparation):
    """Made-up videos and comments; needs no files."""

    kind: ClassVar[str] = "comments-demo"

    name: str = "comments-demo"
    num_users: int = 1500
    """Users."""
    num_videos: int = 1200
    """Videos, over 60 days."""
    comments_per_video: int = 12
    """Comments under each, written within a day or so."""
    visits: int = 24
    """Visits of a user; a video that is watched a second time is left out."""
    interests: int = 3
    """Things that a user likes, of 60."""

    def __post_init__(self) -> None:
        super(CommentsDemo, self).__post_init__()
        require_at_least(1, self, "num_users", "comments_per_video", "visits", "interests")
        require_at_least(100, self, "num_videos")

    def read(self, scratch: Path) -> RawData:
        """Return the visits, the videos and their comments."""
        rng = np.random.default_rng(self.seed)
        N, M, U = self.num_videos, self.comments_per_video, self.num_users
        appeared = np.sort(rng.integers(0, DAYS * DAY, N))
        thing, kind = rng.integers(0, len(THINGS), N), rng.integers(0, len(FORMATS), N)
        tone = rng.integers(0, len(TONES), (N, M))
        written = appeared[:, None] + np.sort(rng.exponential(DAY / 2, (N, M)), axis=1).astype(np.int64)
        likes = np.argsort(rng.random((U, len(THINGS))), axis=1)[:, : self.interests]
        liked_kind = rng.integers(0, len(FORMATS), U)
        liked_tones = np.argsort(rng.random((U, len(TONES))), axis=1)[:, :2]

        user = np.repeat(np.arange(U), self.visits)
        time = np.sort(rng.integers(FRESH * DAY, (DAYS + 1) * DAY, (U, self.visits)), axis=1).flatten()
        seen = _recent_videos(rng, appeared, time)  # (E, SHOWN)
        appeal = 6.0 * np.any(thing[seen][..., None] == likes[user][:, None], axis=2)
        appeal += 1.5 * (kind[seen] == liked_kind[user, None]) + rng.normal(size=N)[seen]
        video = np.take_along_axis(seen, _draw(rng, appeal)[:, None], axis=1)[:, 0]

        there: NDArray[np.bool_] = written[video] < time[:, None]  # (E, M)
        appeal = 4.0 * np.any(tone[video][..., None] == liked_tones[user][:, None], axis=2)
        appeal = np.where(there, appeal + rng.normal(size=(N, M))[video], -np.inf)
        taken = np.stack([_draw(rng, appeal) for _ in range(2)], axis=1)  # (E, 2)
        wanted = rng.random((len(user), 2)) < np.array([0.5, 0.15])
        wanted &= there[:, :1]  # the first one is there if any is
        wanted[:, 1] &= wanted[:, 0] & (taken[:, 0] != taken[:, 1])
        visit, which = np.nonzero(wanted)
        comment = video[visit] * M + taken[visit, which]

        videos = [f"V{number:05}" for number in range(N)]
        titles = [FORMATS[k].format(THINGS[t]) for k, t in zip(kind, thing, strict=True)]
        form = rng.integers(0, 3, (N, M))
        named = rng.integers(0, len(THINGS), (N, M))  # not what the video is about: that would tell whose comment it is
        texts = [TONES[tone[v, m]][form[v, m]].format(THINGS[named[v, m]]) for v in range(N) for m in range(M)]
        names = np.array([f"C{number:07}" for number in range(N * M)])
        people = np.array([f"U{number:06}" for number in range(U)])
        events = pl.DataFrame({"user": people[user], "item": np.array(videos)[video], "timestamp": START + time})
        return RawData(
            events.unique(["user", "item"], keep="first", maintain_order=True).lazy(),
            pl.DataFrame({"raw_id": videos, "title": titles}),
            origin="the made-up videos",
            comments=RawComments(
                pl.DataFrame(
                    {
                        "raw_id": names,
                        "item": np.repeat(videos, M),
                        "text": texts,
                        "published": START + written.flatten(),
                    }
                ),
                pl.DataFrame(
                    {
                        "user": people[user[visit]],
                        "comment": names[comment],
                        "timestamp": START + time[visit] + 30 * (1 + which),
                    }
                ).unique(["user", "comment"], keep="first", maintain_order=True),
                pl.DataFrame({"item": videos, "published": START + appeared}),
                "the made-up comments",
            ),
        )


def _recent_videos(rng: np.random.Generator, appeared: NDArray[np.int64], time: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (E, SHOWN) videos of the last days before each time; one may be there twice."""
    first, end = (np.searchsorted(appeared, moment) for moment in (time - FRESH * DAY, time))
    first = np.minimum(first, len(appeared) - 1)
    span = np.maximum(end - first, 1)
    ahead: NDArray[np.int64] = (rng.random((len(time), SHOWN)) * span[:, None]).astype(np.int64)
    return first[:, None] + ahead


def _draw(rng: np.random.Generator, appeal: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (E,) one column of each row, with probability proportional to its exponential."""
    found: NDArray[np.int64] = np.argmax(appeal + rng.gumbel(size=appeal.shape), axis=1)
    return found
