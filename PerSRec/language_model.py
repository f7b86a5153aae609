"""A language model of `transformers` over item vectors in place of words.

Shapes: B users, T events of all, K tokens, E rows of events and tokens, D width, H heads of queries, G heads of keys
and values, W width of a head.
Source: HLLM, Chen et al. (2024), https://arxiv.org/abs/2409.12740; user tokens, https://arxiv.org/abs/2601.03479.
Deviations: histories are ragged, and their last event has the last position of the window; the table of words is given
up; user tokens start as small as item vectors do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from PerSRec.encoder import HistoryEncoder, in_order
from PerSRec.options import ModelOptions
from seqrec.basics.errors import UserError
from seqrec.nn.dropout import Dropout
from seqrec.nn.segments import Rows, Segments, Window, attend_segments
from seqrec.text.backbones import find_backbone
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.reading import Reading


@dataclass(frozen=True, slots=True)
class SegmentReading(Reading):
    """Attention among the events and tokens of segments, whatever kind of model asks."""

    rows: Rows
    memory: Tensor | None = None
    """(B, blocks, 2, K, G W): keys and values of tokens that are no rows."""
    kept: list[Tensor] | None = None
    """Takes the (B, 2, K, G W) keys and values of each block's tokens."""

    @property
    def positions(self) -> Tensor:
        """(E,) places of the rows in the window."""
        return self.rows.places[: self.rows.segments.queries.shape[0]]

    @property
    def longest(self) -> int:
        """Rows that the last one of a longest segment sees."""
        return max(rectangle.shape[1] for rectangle in self.rows.segments.key_layout.rectangles)

    def attend(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None, dropout: float
    ) -> Tensor:
        """Return (E, H, W) attention within segments, see `Reading`."""
        if self.kept is not None:
            self.kept.append(torch.stack([part[self.rows.tokens].flatten(2) for part in (k, v)], dim=1))
        if self.memory is not None:
            own = self.memory[:, block].unflatten(3, k.shape[1:])  # (B, 2, K, G, W)
            k, v = (torch.cat([part, own[:, which].flatten(0, 1)]) for which, part in enumerate((k, v)))
        segments = self.rows.segments
        return in_order(self.rows, attend_segments(q[segments.queries], k, v, segments, dropout=dropout, scale=scale))


class LanguageModelEncoder(HistoryEncoder):
    """The blocks of a language model, which read the vectors of items and user tokens."""

    def __init__(self, blocks: Blocks, window: Window, dropout_rate: float) -> None:
        """Take all blocks of a model, without its table of words."""
        super().__init__(window, blocks.architecture.word_width)
        self.blocks, self.dropout = blocks, Dropout(dropout_rate)

    @property
    def memory_shape(self) -> tuple[int, int, int, int]:
        """(blocks, 2, K, G W)."""
        architecture = self.blocks.architecture
        heads, width = architecture.kv_shape
        return architecture.num_blocks, 2, self.window.num_tokens, heads * width

    def forward(
        self,
        vectors: Tensor,
        rows: Rows,
        seconds: Tensor | None = None,
        newest: Segments | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return (T, D), or (B, D) for the newest events, see `HistoryEncoder`."""
        states: Tensor = self.blocks(self.dropout(self.with_tokens(vectors, rows)), SegmentReading(rows, memory))
        return states[rows.events if newest is None else newest.queries]

    def compress(self, vectors: Tensor, rows: Rows, seconds: Tensor | None = None) -> Tensor:
        """Return the keys and values of users' tokens in each block, (B, blocks, 2, K, G W), see `HistoryEncoder`."""
        reading = SegmentReading(rows, kept=[])
        self.blocks(self.with_tokens(vectors, rows), reading)
        assert reading.kept is not None
        return torch.stack(reading.kept, dim=1)


def build_language_model(options: ModelOptions, window: Window) -> LanguageModelEncoder:
    """Return the encoder that the flags describe.

    Raises:
        MissingFileError: If the model is nowhere to be found.
        UserError: If its positions do not suffice.
    """
    from transformers import LlamaConfig

    rate = options.attn_dropout_prob or 0.0
    if options.user_pretrain_dir is None:
        architecture = Architecture(
            LlamaConfig(
                vocab_size=1,
                hidden_size=options.hidden_units,
                intermediate_size=options.inner_size * options.hidden_units,
                num_hidden_layers=options.n_layers,
                num_attention_heads=options.n_heads,
                max_position_embeddings=window.num_places,
                attention_dropout=rate,
                pad_token_id=None,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        drawn = Blocks(architecture, 0, architecture.num_blocks).drop_words().draw()
        return LanguageModelEncoder(_kept(drawn, options), window, options.dropout_rate)
    architecture = Architecture.read(find_backbone(options.user_pretrain_dir))
    if architecture.longest is not None and architecture.longest < window.num_places:
        raise UserError(
            f"--maxlen and --number_of_user_tokens make {window.num_places} places: {options.user_pretrain_dir} has "
            f"{architecture.longest}"
        )
    if window.num_tokens and architecture.num_blocks < 2:
        raise UserError(f"--number_of_user_tokens needs 2 blocks or more: {options.user_pretrain_dir} has 1")
    if hasattr(architecture.config, "attention_dropout"):
        architecture.config.attention_dropout = rate
    blocks = Blocks(architecture, 0, architecture.num_blocks).drop_words()
    loaded = blocks.load(architecture.weight_files()) if options.user_llm_init else blocks.draw()
    return LanguageModelEncoder(_kept(loaded, options), window, options.dropout_rate)


def _kept(blocks: Blocks, options: ModelOptions) -> Blocks:
    return blocks.recompute() if options.gradient_checkpointing else blocks
