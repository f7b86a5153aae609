"""The two histories of a user, read together: videos, and videos under which comments were taken up.

Shapes: B users, P videos and Q entries of comments of all histories, R comments of all entries, N items, D width, W
width of text vectors. Source: Zheng et al. (2024), https://arxiv.org/abs/2403.13574. Deviations: histories are ragged;
an empty one has one learned vector.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from LSVCR.options import ModelOptions, Task
from seqrec.nn.blocks import AttentionBlock
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Layout


class Inputs(NamedTuple):
    """Both histories of users; each has a row at least, in which an empty history has item 0."""

    videos: Tensor
    """(P,) int64 items watched."""
    hot: Tensor
    """(P,) int64 rows of `texts`: a popular comment of each."""
    entries: Tensor
    """(Q,) int64 items under which comments were taken up."""
    taken: Tensor
    """(R,) int64 rows of `texts`: the comments."""
    owner: Tensor
    """(R,) int64 entry of each."""
    places: tuple[Tensor, Tensor]
    """(P,) and (Q,) int64 places of the rows in their histories, from 0."""
    layouts: tuple[Layout, Layout]
    """Where the histories lie; rectangles are of the same users."""
    texts: Tensor | None
    """(M, W) text vectors of comments, row 0 zero; None without texts."""
    watched: Tensor | None
    """(B,) int64 item whose comments are asked for, if they are."""
    alone: Layout | None
    """Of `watched`: one row for each user."""
    order: Tensor
    """(B,) int64 puts results back into the batch's order."""
    moments: Tensor | None = None
    """(B,) int64 seconds up to which the histories go, in the batch's order."""
    titles: tuple[Tensor, Tensor] | None = None
    """(K,) int64 items, ascending, and their (K, W) text vectors, where these are not the model's own."""


class PostNormBlock(AttentionBlock):
    """Attention and a feed-forward network, each followed by its residual and norm."""

    def __init__(self, options: ModelOptions) -> None:
        width, rate = options.hidden_units, options.dropout_rate
        super().__init__(width, options.num_heads, rate)
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.inner_size), nn.GELU(), nn.Linear(options.inner_size, width), Dropout(rate)
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = Dropout(rate)

    def forward(self, asked: Tensor, seen: Tensor, layout: Layout, asked_layout: Layout | None = None) -> Tensor:
        """Return (Q, D): causal attention within one history, or with an `asked_layout` to all of another one."""
        mixed = self.attention(asked, seen, layout, asked_layout, causal=asked_layout is None)
        x = self.attention_norm(asked + self.dropout(mixed))
        out: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return out


class History(nn.Module):
    """Places, an empty history's vector and the blocks of one history."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        width = options.hidden_units
        self.places = nn.Embedding(options.maxlen, width)
        self.empty = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = Dropout(options.dropout_rate)
        self.blocks = nn.ModuleList(PostNormBlock(options) for _ in range(options.num_blocks))

    def forward(self, x: Tensor, items: Tensor, places: Tensor, layout: Layout) -> Tensor:
        """Return the (P, D) states of rows, from what is known of their items."""
        x = torch.where((items == 0)[:, None], self.empty, x) + self.places(places)
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, x, layout)
        return x


class Mixing(nn.Module):
    """One history reads the other one."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PostNormBlock(options) for _ in range(options.n_mix_layers))
        self.out = nn.Linear(2 * options.hidden_units, options.hidden_units)

    def forward(self, own: Tensor, other: Tensor, layout: Layout, other_layout: Layout) -> Tensor:
        """Return (P, D) from the (P, D) states of the one and the (Q, D) of the other history."""
        x = own
        for block in self.blocks:
            x = block(x, other, other_layout, layout)
        mixed: Tensor = self.out(torch.cat([own, x], dim=1))
        return mixed


class AdditiveReadout(nn.Module):
    """The mean of a history's states, weighted by what a network makes of each."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(width, 2 * width), Dropout(rate), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 1)
        )

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Return (B, D) from (P, D)."""
        out = []
        for states, scores, rectangle in zip(
            layout.pack(x), layout.pack(self.score(x)), layout.rectangles, strict=True
        ):
            scores = scores[..., 0]
            if rectangle.mask is not None:
                scores = scores.masked_fill(~rectangle.mask[:, 0, 0], -torch.inf)
            out.append((scores.softmax(dim=1)[..., None] * states).sum(dim=1))
        return torch.cat(out)


class QueryReadout(AttentionBlock):
    """What a video takes from a history's states."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__(options.hidden_units, options.num_heads, options.dropout_rate)
        self.norm = nn.LayerNorm(options.hidden_units, eps=1e-8)

    def forward(self, query: Tensor, x: Tensor, layout: Layout, alone: Layout) -> Tensor:
        """Return (B, D) from (B, D) and (Q, D)."""
        out: Tensor = self.norm(query + self.attention(query, x, layout, alone, causal=False))
        return out


class SRModel(nn.Module):
    """The sequential recommender, with the parts that its tasks use alone."""

    titles: Tensor | None

    def __init__(
        self,
        num_items: int,
        options: ModelOptions,
        tasks: tuple[Task, ...],
        titles: Tensor | None = None,
        text_width: int | None = None,
        with_ids: bool = True,
    ) -> None:
        """Build it.

        Args:
            num_items: N.
            options: The architecture.
            tasks: What it is for.
            titles: (N+1, W) text vectors of videos, if it keeps them.
            text_width: W, if it does not; None if there are no texts, either.
            with_ids: Whether videos have vectors of their own.
        """
        super().__init__()
        width = options.hidden_units
        self.options, self.num_items = options, num_items
        self.ids = nn.Embedding(num_items + 1, width, padding_idx=0) if with_ids else None
        self.gate = nn.Parameter(torch.ones(())) if with_ids else None
        self.register_buffer("titles", titles, persistent=False)
        self.text_mlp: nn.Module = nn.Identity()
        wide, narrow = text_width if titles is None else titles.shape[1], options.llm_emb_size
        if wide is not None:
            if wide > narrow:
                self.text_mlp = nn.Sequential(nn.Linear(wide, wide // 4), nn.GELU(), nn.Linear(wide // 4, narrow))
            self.adapter = nn.Linear(min(wide, narrow), width, bias=False)
            self.merge = nn.Linear(2 * width, width)
        self.video_history, self.comment_history = History(options), History(options)
        self.mixing = nn.ModuleDict({task: Mixing(options) for task in tasks})
        self.readout = nn.ModuleDict()
        if "Rec" in tasks:
            self.readout["Rec"] = AdditiveReadout(width, options.dropout_rate)
        if "CommRank" in tasks:
            self.readout["CommRank"] = QueryReadout(options)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        if wide is not None:
            # Keeps the scale of texts of any width; at 4,096 numbers that is about 0.02, too.
            for part in (*self.text_mlp.modules(), self.adapter):
                if isinstance(part, nn.Linear):
                    nn.init.normal_(part.weight, std=part.in_features**-0.5)
            # Histories begin as what targets are, or nothing of the two would be alike for thousands of batches.
            nn.init.eye_(self.merge.weight[:, :width])
            nn.init.eye_(self.merge.weight[:, width:])
        for mixing in self.mixing.values():
            assert isinstance(mixing, Mixing)
            nn.init.eye_(mixing.out.weight[:, :width])
        if self.ids is not None:
            with torch.no_grad():
                self.ids.weight[0] = 0

    def text(self, vectors: Tensor) -> Tensor:
        """Return (..., D) of (..., W) text vectors."""
        adapted: Tensor = self.adapter(self.text_mlp(vectors))
        return adapted

    def titles_of(self, items: Tensor, inputs: Inputs) -> Tensor:
        """Return the (n, D) texts of (n,) items that occur in the inputs."""
        if inputs.titles is not None:
            known, vectors = inputs.titles
            return self.text(vectors)[torch.searchsorted(known, items)]
        assert self.titles is not None
        items, places = items.unique(return_inverse=True)
        return self.text(self.titles[items])[places]

    def merged_texts(self, inputs: Inputs) -> tuple[Tensor, Tensor] | None:
        """Return what the texts say of the rows of each history, (P, D) and (Q, D); None without texts."""
        if inputs.texts is None:
            return None
        comments = F.pad(self.text(inputs.texts[1:]), (0, 0, 1, 0))  # no comment says nothing
        # The adapter is linear, and the comments of an entry have one mean.
        total = comments.new_zeros(len(inputs.entries), comments.shape[1])
        total = total.index_add(0, inputs.owner, comments[inputs.taken])
        counts = torch.bincount(inputs.owner, minlength=len(inputs.entries)).clamp(min=1)
        titles = self.titles_of(torch.cat([inputs.videos, inputs.entries]), inputs)
        others = torch.cat([comments[inputs.hot], total / counts[:, None]])
        merged = self.merge(torch.cat([titles, others], dim=1))
        videos, entries = merged.split([len(inputs.videos), len(inputs.entries)])
        return videos, entries

    def states(self, inputs: Inputs) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Return the states of both histories, (P, D) and (Q, D), each by itself, and what `merged_texts` returns."""
        texts = self.merged_texts(inputs)
        rows = []
        for number, items in enumerate((inputs.videos, inputs.entries)):
            x = None if self.ids is None or self.gate is None else self.gate * self.ids(items)
            if texts is not None:
                x = texts[number] if x is None else x + texts[number]
            rows.append(x)
        videos, entries = inputs.layouts
        assert rows[0] is not None and rows[1] is not None
        p = self.video_history(rows[0], inputs.videos, inputs.places[0], videos)
        c = self.comment_history(rows[1], inputs.entries, inputs.places[1], entries)
        return p, c, texts

    def forward(self, inputs: Inputs, task: Task) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return the users' vectors for a task, (B, D) in the batch's order, and what `merged_texts` returns."""
        p, c, texts = self.states(inputs)
        videos, entries = inputs.layouts
        if task == "Rec":
            user: Tensor = self.readout["Rec"](self.mixing["Rec"](p, c, videos, entries), videos)
        else:
            assert inputs.watched is not None
            mixed = self.mixing["CommRank"](c, p, entries, videos)
            user = self.readout["CommRank"](self.item_vectors(inputs.watched), mixed, entries, inputs.alone)
        return user[inputs.order], texts

    def both(self, inputs: Inputs, for_comments: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each history says of users: the one that the user's task reads first, then the other one.

        Args:
            inputs: Of a model for both tasks without videos' own vectors.
            for_comments: (B,) bool in the batch's order, whether a user's task is CommRank.

        Returns:
            (B, D) and (B, D) in the batch's order.
        """
        assert inputs.watched is not None
        p, c, _ = self.states(inputs)
        videos, entries = inputs.layouts
        p, c = self.mixing["Rec"](p, c, videos, entries), self.mixing["CommRank"](c, p, entries, videos)
        query = self.titles_of(inputs.watched, inputs)
        of_videos, of_entries = (
            torch.stack(
                [
                    self.readout["Rec"](states, layout),
                    self.readout["CommRank"](query, states, layout, inputs.alone),
                ]
            )[:, inputs.order]
            for states, layout in ((p, videos), (c, entries))
        )  # (2, B, D) each, by task
        asks = for_comments[:, None]
        first = torch.where(asks, of_entries[1], of_videos[0])
        return first, torch.where(asks, of_videos[1], of_entries[0])

    def item_vectors(self, rows: Tensor | None = None) -> Tensor:
        """Return what videos are scored with, (N+1, D), or of some rows alone."""
        own = None
        if self.ids is not None and self.gate is not None:
            own = self.gate * (self.ids.weight if rows is None else self.ids(rows))
        if self.titles is None:
            assert own is not None
            return own
        text = self.text(self.titles if rows is None else self.titles[rows])
        return text if own is None else own + text

    def id_text_loss(
        self, items: tuple[Tensor, Tensor], texts: tuple[Tensor, Tensor], negatives: int, temperature: float
    ) -> Tensor:
        """Return the loss that tells a row's own text from those of other rows by its id, and its id by its text.

        Summed over both histories; a row's negatives are `negatives` random rows of the history's, shared by the batch,
        without those of the same video.
        """
        assert self.ids is not None
        total = texts[0].new_zeros(())
        for rows, text in zip(items, texts, strict=True):
            real = rows > 0
            rows, text = rows[real], text[real]
            drawn = torch.randperm(len(rows), device=rows.device)[:negatives]
            if len(rows) < 2:
                continue
            own, text = F.normalize(self.ids(rows), dim=1), F.normalize(text, dim=1)
            total = total + id_text_contrast(own, text, rows, drawn, temperature)
        return total


def id_text_contrast(own: Tensor, text: Tensor, rows: Tensor, drawn: Tensor, temperature: float) -> Tensor:
    """Return the mean of both directions' cross-entropies.

    Args:
        own: (n, D) of length 1, the videos' own vectors.
        text: (n, D) of length 1.
        rows: (n,) int64 videos.
        drawn: (K,) int64 places of the negatives.
        temperature: Cosines are divided by it.
    """
    positive = (own * text).sum(dim=1, keepdim=True)
    same = rows[:, None] == rows[drawn]
    losses = []
    for left, right in ((own, text), (text, own)):
        others = (left @ right[drawn].T).masked_fill(same, -torch.inf)
        logits = torch.cat([positive, others], dim=1) / temperature
        losses.append(F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.int64, device=rows.device)))
    return (losses[0] + losses[1]) / 2
