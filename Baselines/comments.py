"""Rankings of the comments under a video, by rules. Shapes: n cases, T candidates of all, C comments, E events."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from Baselines.options import Baseline, Config
from seqrec.basics.arrays import ragged_arange
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.data.activity import Activity
from seqrec.data.comment_cases import Candidates, CommentCases, CommentProtocol, split_cases
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import Dataset
from seqrec.evaluation.ranking import rank_listed
from seqrec.evaluation.recorder import RankRecorder
from seqrec.items.words import count_words, read_texts
from seqrec.training.folder import RunFolder
from seqrec.training.module import NextItemModule
from seqrec.training.record import RunRecord
from seqrec.training.trainer import report

Score = Callable[[CommentCases, Candidates], NDArray[np.float64]]


class Rule(NextItemModule):
    """A ranking that keeps nothing: its results alone."""

    def item_vectors(self) -> Tensor:
        """Return (0, 0): there are none."""
        return torch.zeros(0, 0)


def rank_comments(config: Config, dataset: Dataset) -> None:
    """Rank the comments of validation and test cases, and write the run folder."""
    comments = load_comments(dataset)
    protocol = CommentProtocol(metric_ks=config.protocol.metric_ks, max_candidate_num=config.max_candidate_num)
    run = RunFolder("Baselines", dataset, f"comments-{config.baseline}", config.training, protocol)
    if not run.open(config):
        return
    cases = split_cases(comments, config.max_candidate_num)
    module, record = Rule(protocol.metric_ks), RunRecord(run.folder, config.training)
    score = make_rule(config.baseline, comments)
    for part in (cases.valid, cases.test):
        module.recorder = RankRecorder(protocol.metric_ks, joint=True)
        found = part.candidates(np.arange(len(part)))
        scores = torch.from_numpy(score(part, found))
        owner = np.repeat(np.arange(len(part)), found.lengths)[found.relevant]
        module.recorder.expect(part.users[owner])
        ranking = rank_listed(scores, torch.from_numpy(found.lengths), torch.from_numpy(found.relevant))
        module.recorder.add(torch.arange(len(owner)), ranking)
        record.best, module.results = module.results, module.recorder.compute()
    with write_atomically(run.folder / "checkpoints" / "best.ckpt") as file:
        torch.save({"state_dict": module.state_dict()}, file)
    report(run, module, record, 0.0)


def make_rule(rule: Baseline, comments: Comments) -> Score:
    """Return what scores the (T,) candidates of all cases.

    newest: when the comment appeared. latest: when it was last taken up before the case. popularity: how often.
    text-knn: the mean cosine between its words and those of the comments that the user took up before.

    Raises:
        UserError: If the dataset does not say what the rule needs.
    """
    if rule in ("popularity", "latest"):
        activity = Activity(comments.own.items, comments.times)
        ask = activity.count_before if rule == "popularity" else activity.last_before
        return lambda cases, found: ask(found.comments, np.repeat(times_of(cases), found.lengths)).astype(np.float64)
    if rule == "text-knn":
        (words,), _ = count_words([read_texts(comments.own)])

        def near(cases: CommentCases, found: Candidates) -> NDArray[np.float64]:
            known = mean_of_taken(comments, cases.users, times_of(cases)) @ words
            owner = np.repeat(np.arange(len(cases)), found.lengths)
            return np.asarray(known[owner].multiply(words[found.comments - 1]).sum(axis=1), dtype=np.float64).ravel()

        return near
    published = comments.published
    if published is None:
        raise UserError(f"--baseline newest: {comments.own.path} does not say when comments appeared")
    return lambda cases, found: published[found.comments].astype(np.float64)


def times_of(cases: CommentCases) -> NDArray[np.int64]:
    """Return (n,) when each case is asked, in seconds."""
    return cases.entries.times[cases.rows]


def mean_of_taken(comments: Comments, users: NDArray[np.int64], times: NDArray[np.int64]) -> Any:
    """Return (n, C) sparse weights, which sum to 1, of what users took up before some moments."""
    offsets = comments.own.offsets
    counts = offsets[users + 1] - offsets[users]
    events, rows = ragged_arange(offsets[users], counts), np.repeat(np.arange(len(users)), counts)
    earlier = comments.times[events] < times[rows]
    rows, taken = rows[earlier], comments.own.items[events[earlier]].astype(np.int64) - 1
    weights = 1 / np.bincount(rows, minlength=len(users))[rows]
    return scipy.sparse.csr_array((weights.astype(np.float32), (rows, taken)), (len(users), comments.own.num_items))
