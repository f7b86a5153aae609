"""Batches of alignment: users before a video or a comment, what is asked, and every text that is read, once.

Shapes: B users, P videos and Q entries of their histories, M comments and K videos whose texts are read.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from LSVCR.align_options import AlignConfig
from LSVCR.cases import VideoCases
from LSVCR.data import Found, Moments, Streams
from LSVCR.model import Inputs
from LSVCR.options import Task
from LSVCR.prompting import PromptWriter, Tokens
from seqrec.basics.arrays import ragged_arange
from seqrec.basics.draws import RowDraws
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comment_cases import CommentCases
from seqrec.nn.ragged import Layout
from seqrec.text.texts import Texts, TextTokens

SHOWN = 3
"""Comments of an entry that are read, drawn anew each time."""


class AlignBatch(NamedTuple):
    """Users, prompts with their answers, and texts."""

    inputs: Inputs
    """Without texts and titles; what is watched has item 0 for users who are asked for a video."""
    for_comments: Tensor
    """(B,) bool, whether a comment is asked for."""
    prompts: Texts
    """Each with its answer."""
    ends: Tensor
    """(B,) int64 row of each prompt's last token, before the answer."""
    answers: Tensor
    """(A,) int64 rows of the answers' tokens."""
    texts: Texts
    """Of K videos, then of M comments."""
    items: Tensor
    """(K,) int64, ascending."""
    comments: Tensor
    """(R,) int64 place among the comments of those that `inputs` names but the first, which is none."""
    targets: Tensor
    """(B,) int64 place of each user's target among the texts."""
    keys: Tensor
    """(B,) int64 what the target is: the same number, the same target; never 0."""
    num_counted: int


class Sources(NamedTuple):
    """The texts of a dataset's videos and of its comments, in tokens of a language model."""

    titles: TextTokens
    comments: TextTokens
    plain_titles: TextTokens
    """Without special tokens, as are the next."""
    plain_comments: TextTokens


class AlignCases(Dataset[AlignBatch]):
    """The training cases of both tasks, some of them drawn where there are more than wanted."""

    def __init__(
        self,
        streams: Streams,
        videos: VideoCases,
        comments: CommentCases,
        popular: NDArray[np.int64],
        sources: Sources,
        writer: PromptWriter,
        config: AlignConfig,
    ) -> None:
        """Take the cases.

        Args:
            streams: Both histories.
            videos: Cases of the next video.
            comments: Cases of comments.
            popular: (N+1, n) comments of each item, most popular first, 0 for none.
            sources: The texts.
            writer: Of prompts.
            config: All flags.

        Raises:
            UserError: If there is no case, or a prompt has no room for histories.
        """
        self.streams, self.popular, self.sources, self.writer, self.config = streams, popular, sources, writer, config
        self.cases, seed = comments, config.training.seed
        kept = [_draw(len(part), config.train_num, seed) for part in (videos.at, comments)]
        if not sum(map(len, kept)):
            raise UserError("there is nothing to align on: no training case of a video or of a comment")
        longest = config.tokenized_len
        if min(writer.room(task) for task in ("Rec", "CommRank")) < longest:
            raise UserError(
                f"--max_source_length {config.max_source_length} leaves less than --tokenized_len {longest} tokens "
                "beside the words of the prompts: give more"
            )
        self.video_targets = streams.comments.dataset.items[videos.at[kept[0]]].astype(np.int64)
        self.comment_rows = kept[1]
        entries = comments.entries
        self.users = np.concatenate([videos.moments.users[kept[0]], comments.users[kept[1]]])
        self.times = np.concatenate([videos.moments.times[kept[0]], entries.times[comments.rows[kept[1]]]])

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) rows of each case."""
        return self.streams.count_rows(Moments(self.users, self.times))

    def __getitem__(self, key: BatchKey) -> AlignBatch:
        rows, config, B = key.rows, self.config, len(key.rows)
        asks = rows >= len(self.video_targets)
        watched, targets = np.zeros(B, np.int64), np.zeros(B, np.int64)
        targets[~asks] = self.video_targets[rows[~asks]]
        if asks.any():
            watched[asks], targets[asks] = self._comments_asked(rows[asks], key)
        found = self.streams.find(Moments(self.users[rows], self.times[rows]))
        draws = key.draws(config.training.seed, rows[found.order], "views")
        hot = self._hot_comments(found.videos, found.lengths[0], draws)
        told, read = self._taken_comments(found, draws)
        places, kept = np.nonzero(read)
        shown = found._replace(taken=read[places, kept], owner=places)
        inputs, known = shown.inputs(hot[1], watched)
        inputs = inputs._replace(places=_drawn_places(inputs.layouts, config.model.maxlen, draws))
        items = np.unique(np.concatenate([found.videos, found.entries, watched, targets[~asks]]))
        items, answers = items[items > 0], targets[asks]
        comments = np.union1d(known[1:], answers)
        place = np.where(asks, len(items) + np.searchsorted(comments, targets), np.searchsorted(items, targets))
        prompts = self._prompts(found, hot[0], told, asks, watched, targets, key)
        sizes = np.array([[len(prompt), len(answer)] for prompt, answer in prompts])
        starts = np.cumsum(sizes.sum(axis=1)) - sizes[:, 1]
        return AlignBatch(
            inputs=inputs,
            for_comments=torch.from_numpy(asks),
            prompts=_texts([np.concatenate(pair) for pair in prompts]),
            ends=torch.from_numpy(starts - 1),
            answers=torch.from_numpy(ragged_arange(starts, sizes[:, 1])),
            texts=_joined(self.sources.titles.read(items), self.sources.comments.read(comments)),
            items=torch.from_numpy(items),
            comments=torch.from_numpy(np.searchsorted(comments, known[1:])),
            targets=torch.from_numpy(place),
            keys=torch.from_numpy(np.where(asks, -targets, targets)),
            num_counted=B if key.counts else 0,
        )

    def _comments_asked(self, rows: NDArray[np.int64], key: BatchKey) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the videos and one comment, drawn of those taken up, of some rows of comments."""
        chosen = self.comment_rows[rows - len(self.video_targets)]
        comments, lengths, relevant = self.cases.candidates(chosen)
        owner = np.repeat(np.arange(len(chosen)), lengths)[relevant]
        keys = key.draws(self.config.training.seed, rows, "answers").uniform(np.bincount(owner, minlength=len(rows)))
        order = np.lexsort((keys, owner))
        first = order[np.searchsorted(owner, np.arange(len(chosen)))]
        return self.cases.entries.items[self.cases.rows[chosen]], comments[relevant][first]

    def _hot_comments(
        self, videos: NDArray[np.int64], lengths: NDArray[np.int64], draws: RowDraws
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (P,) a popular comment of each video for the prompt, and for the small model: by chance another."""
        known = np.maximum((self.streams.hot[videos] > 0).sum(axis=1), 1)
        first = draws.integers(0, known, lengths)
        other = (first + 1 + draws.integers(0, np.maximum(known - 1, 1), lengths)) % known
        differs = self._differs(self.config.phis_aug_p, lengths, draws)
        second = np.where(differs, other, first)
        return self.streams.hot[videos, first], self.streams.hot[videos, second]

    def _taken_comments(self, found: Found, draws: RowDraws) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (Q, SHOWN) comments of each entry for the prompt and for the small model, 0 for none.

        By chance they differ: as many popular comments of the video are added to the entry's own, and all are dealt to
        the two at random.
        """
        entries, lengths, taken, owner = found.entries, found.lengths[1], found.taken, found.owner
        Q = len(entries)
        counts = np.bincount(owner, minlength=Q)
        user = np.repeat(np.arange(len(lengths)), lengths)
        by_user = np.bincount(user, weights=counts, minlength=len(lengths)).astype(np.int64)
        order = np.lexsort((draws.uniform(by_user), owner))
        rank = ragged_arange(np.zeros_like(counts), counts)
        own = np.zeros((Q, SHOWN), np.int64)
        own[owner[order][rank < SHOWN], rank[rank < SHOWN]] = taken[order][rank < SHOWN]
        differs = np.flatnonzero(self._differs(self.config.chis_aug_p, lengths, draws) & (counts > 0))
        size = self.popular.shape[1]
        pool, keys = self.popular[entries], draws.uniform(lengths * size).reshape(Q, size)
        anyone = draws.integers(1, self.streams.comments.own.num_items + 1, lengths * SHOWN).reshape(Q, SHOWN)
        deal = draws.uniform(lengths * 2 * SHOWN).reshape(Q, 2 * SHOWN)
        told, read = own.copy(), own.copy()
        if len(differs):
            mine, pool, keys, deal = own[differs], pool[differs], keys[differs], deal[differs]
            unusable = (pool == 0) | (pool[:, :, None] == mine[:, None]).any(axis=2)
            pool = np.take_along_axis(pool, np.argsort(np.where(unusable, 2.0, keys), axis=1), axis=1)
            usable = (~unusable).sum(axis=1, keepdims=True)
            again = np.arange(SHOWN) % np.maximum(usable, 1)  # too few are taken again, none are drawn from all
            others = np.where(usable > 0, np.take_along_axis(pool, again, axis=1), anyone[differs])
            cards = np.concatenate([mine, np.where(mine > 0, others, 0)], axis=1)
            cards = np.take_along_axis(cards, np.argsort(np.where(cards > 0, deal, 2.0), axis=1), axis=1)
            told[differs], read[differs] = cards[:, ::2], cards[:, 1::2]
        return told, read

    def _differs(self, chance: float, lengths: NDArray[np.int64], draws: RowDraws) -> NDArray[np.bool_]:
        """Return which rows of a history the prompt and the small model read with different comments."""
        users = draws.uniform() < chance
        return np.repeat(users, lengths) & (draws.uniform(lengths) < self.config.inter_aug_p)

    def _prompts(
        self,
        histories: Found,
        hot: NDArray[np.int64],
        told: NDArray[np.int64],
        asks: NDArray[np.bool_],
        watched: NDArray[np.int64],
        targets: NDArray[np.int64],
        key: BatchKey,
    ) -> list[tuple[Tokens, Tokens]]:
        """Return each user's prompt and answer, in the batch's order."""
        title, comment, writer = self._title, self._comment, self.writer
        videos, entries, lengths = histories.videos, histories.entries, histories.lengths
        starts = [np.cumsum(part) - part for part in lengths]
        place = np.argsort(histories.order)
        chance = key.draws(self.config.training.seed, key.rows, "prompts").uniform()
        found = []
        for user in range(len(place)):
            at = place[user]
            first, last = starts[0][at], starts[0][at] + lengths[0][at]
            watched_lines = [
                writer.video(number, title(videos[row]), comment(hot[row]))
                for number, row in enumerate(range(first, last), 1)
                if videos[row]
            ]
            first, last = starts[1][at], starts[1][at] + lengths[1][at]
            taken_lines = [
                writer.entry(number, title(entries[row]), [comment(c) for c in told[row] if c])
                for number, row in enumerate(range(first, last), 1)
                if entries[row]
            ]
            task: Task = "CommRank" if asks[user] else "Rec"
            variant = int(chance[user] * writer.variants(task))
            prompt = writer.prompt(task, variant, watched_lines, taken_lines, title(watched[user]))
            answer = comment(targets[user]) if asks[user] else title(targets[user])
            found.append((prompt, writer.answer(answer)))
        return found

    def _title(self, item: int) -> Tokens:
        return _plain(self.sources.plain_titles, item)

    def _comment(self, comment: int) -> Tokens:
        return _plain(self.sources.plain_comments, comment)


def _draw(number: int, most: int, seed: int) -> NDArray[np.int64]:
    """Return `most` of a number of rows, or all if there are no more."""
    if number <= most:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).permutation(number)[:most])


def _drawn_places(layouts: tuple[Layout, Layout], maxlen: int, draws: RowDraws) -> tuple[Tensor, Tensor]:
    """Return places for the rows of each history, drawn of all `maxlen` and ascending, so that all are learned."""
    found = []
    for layout in layouts:
        lengths = layout.offsets.diff().numpy()
        keys = draws.uniform(np.full(len(lengths), maxlen)).reshape(-1, maxlen)
        rank = np.argsort(np.argsort(keys, axis=1), axis=1)
        found.append(torch.from_numpy(np.nonzero(rank < lengths[:, None])[1]))
    return found[0], found[1]


def _plain(tokens: TextTokens, number: int) -> Tokens:
    return tokens.tokens[tokens.offsets[number] : tokens.offsets[number + 1]].astype(np.int64)


def _texts(sequences: list[Tokens]) -> Texts:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return Texts(torch.from_numpy(np.concatenate(sequences)), torch.from_numpy(offsets))


def _joined(first: Texts, second: Texts) -> Texts:
    return Texts(
        torch.cat([first.values, second.values]), torch.cat([first.offsets, first.offsets[-1] + second.offsets[1:]])
    )
