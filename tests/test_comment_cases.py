"""Cases of comment recommendation, by hand and against a slow reading of the rule."""

from pathlib import Path

import numpy as np
import pytest

from seqrec.data.comment_cases import DAY, CommentCases, find_entries, split_cases
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.comments_demo import CommentsDemo
from tests.test_comments import read, write_tables

VIDEOS = {"video_id": [1, 2], "title": ["one", "two"], "timestamp": [0, 0]}
COMMENTS = {
    "comment_id": ["a", "b", "c", "d", "e"],
    "video_id": [1, 1, 1, 2, 2],
    "content": ["a", "b", "c", "d", "e"],
    "timestamp": [10, 20, 500, 10, 30],
}
WATCHED = {"user_id": ["x", "x"], "video_id": [1, 2], "timestamp": [1, 2]}


def answered(*events: tuple[str, str, int]) -> dict[str, list[object]]:
    return {name: [event[i] for event in events] for i, name in enumerate(("user_id", "comment_id", "timestamp"))}


def shop(folder: Path, *events: tuple[str, str, int]) -> Comments:
    tables = {"videos": VIDEOS, "comments": COMMENTS, "video_events": WATCHED, "comment_events": answered(*events)}
    return read(write_tables(folder, **tables))  # type: ignore[arg-type]


def test_entries_by_hand(tmp_path: Path) -> None:
    events = [("x", "a", 100), ("x", "b", 200), ("x", "d", 300), ("x", "a", 400), ("x", "c", 401 + DAY), ("y", "a", 50)]
    entries = find_entries(shop(tmp_path, *events))
    assert entries.users.tolist() == [0, 0, 0, 0, 1]
    assert entries.items.tolist() == [1, 2, 1, 1, 1]  # the last two of x are more than a day apart
    assert entries.times.tolist() == [100, 300, 400, 401 + DAY, 50]
    assert entries.bounds.tolist() == [0, 2, 3, 4, 5, 6]
    assert entries.offsets.tolist() == [0, 4, 5]


def test_cases_by_hand(tmp_path: Path) -> None:
    events = [("x", "a", 25), ("x", "e", 31), ("x", "a", 600), ("x", "c", 601), ("x", "d", 10**6), ("y", "c", 100)]
    split = split_cases(shop(tmp_path, *events))
    # y took up what was not there before: no case. Of x, two entries train, one validates, and one is the test's.
    cases = [(c.users.tolist(), c.candidates(np.arange(len(c)))) for c in split]
    assert [users for users, _ in cases] == [[0, 0], [0], [0]]
    train, valid, test = (found for _, found in cases)
    assert (train.comments.tolist(), train.relevant.tolist()) == ([1, 2, 4, 5], [True, False, False, True])
    assert (valid.comments.tolist(), valid.relevant.tolist()) == ([1, 2, 3], [True, False, True])
    assert (test.comments.tolist(), test.relevant.tolist()) == ([4, 5], [True, False])


def test_a_case_where_every_candidate_was_taken_up_is_left_out(tmp_path: Path) -> None:
    split = split_cases(shop(tmp_path, ("x", "a", 15), ("x", "a", 25)))
    assert [len(part) for part in split] == [0, 0, 0]  # at 15, a is alone; the second event belongs to that entry


def slowly(cases: CommentCases, row: int) -> tuple[list[int], set[int]]:
    """Return all candidates of a case, and the relevant ones."""
    comments, entry = cases.comments, int(cases.rows[row])
    item, time = int(cases.entries.items[entry]), int(cases.entries.times[entry])
    assert comments.published is not None
    there = [c for c in range(1, comments.own.num_items + 1) if comments.under[c] == item]
    there = [c for c in there if comments.published[c] < time]
    taken = comments.own.items[cases.entries.bounds[entry] : cases.entries.bounds[entry + 1]].tolist()
    return there, set(taken) & set(there)


@pytest.mark.parametrize("limit", [3, 100])
def test_candidates_are_what_was_there_before(limit: int, tmp_path: Path) -> None:
    config = CommentsDemo(data_dir=tmp_path, num_users=60, num_videos=100, visits=9, comments_per_video=7)
    comments = load_comments(load_dataset(prepare(config)))
    seen = set()
    for part in split_cases(comments, limit, seed=5):
        together = part.candidates(np.arange(len(part)))
        ends = np.cumsum(together.lengths)
        for row in range(len(part)):
            there, taken = slowly(part, row)
            stretch = slice(int(ends[row] - together.lengths[row]), int(ends[row]))
            found, relevant = together.comments[stretch], together.relevant[stretch]
            assert 0 < len(taken) < len(there)
            assert set(found[relevant].tolist()) == taken and set(found.tolist()) <= set(there)
            assert len(found) == max(min(limit, len(there)), len(taken))
            assert (np.diff(found) > 0).all()
            alone = part.candidates(np.array([row]))
            assert alone.comments.tolist() == found.tolist() and alone.relevant.tolist() == relevant.tolist()
            seen.add(int(part.rows[row]))
    assert len(seen) == sum(len(part) for part in split_cases(comments))
    first = split_cases(comments, 3, seed=5).train.candidates(np.arange(40)).comments
    assert first.tolist() != split_cases(comments, 3, seed=6).train.candidates(np.arange(40)).comments.tolist()
