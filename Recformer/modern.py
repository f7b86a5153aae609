"""ModernBERT's layers on ragged batches: rotary positions, a gated feed-forward, norms before, and some layers local.

Shapes: T tokens, D width, H heads, E = D / H, F width of the feed-forward.
Source: Warner et al. (2024), section 2.1, https://arxiv.org/abs/2412.13663; rotary positions: Su et al. (2021),
https://arxiv.org/abs/2104.09864. Recformer's token types and item positions are added to the words.
"""

from torch import Tensor, nn

from Recformer.attention import attend_freely
from Recformer.config import ACTIVATIONS, RecformerConfig
from seqrec.nn.dropout import Dropout
from seqrec.nn.ragged import Plan
from seqrec.nn.rotation import rotate
from seqrec.text.sequences import TokenBatch


class ModernEmbeddings(nn.Module):
    """Word, token-type and item-position embeddings, summed and normalised; positions are rotary, in the layers."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, D, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.token_type_size, D)
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, D)
        self.LayerNorm = nn.LayerNorm(D, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, batch: TokenBatch, plan: Plan) -> Tensor:
        """Return (T, D) in the order of the plan."""
        order = plan.token_order
        total = self.word_embeddings(batch.input_ids[order])
        total = total + self.token_type_embeddings(batch.token_type_ids[order])
        total = total + self.item_position_embeddings(batch.item_position_ids[order])
        out: Tensor = self.dropout(self.LayerNorm(total))
        return out


class ModernLayer(nn.Module):
    """Attention and a gated feed-forward, each after its norm and added to what it reads."""

    def __init__(self, config: RecformerConfig, index: int) -> None:
        super().__init__()
        D, F = config.hidden_size, config.intermediate_size
        is_full = index in config.full_attention_layers
        self.heads = config.num_attention_heads
        self.reach = None if is_full else config.attention_window[index] // 2
        self.theta = config.rope_theta if is_full else config.local_rope_theta
        # The embeddings are normalised already: the first layer reads them as they are.
        first = index == 0
        eps, bias = config.layer_norm_eps, config.norm_bias
        self.attention_norm: nn.Module = nn.Identity() if first else nn.LayerNorm(D, eps, bias=bias)
        self.qkv = nn.Linear(D, 3 * D, bias=config.attention_bias)
        self.attention_out = nn.Linear(D, D, bias=config.attention_bias)
        self.feed_forward_norm = nn.LayerNorm(D, eps, bias=bias)
        self.feed_forward_in = nn.Linear(D, 2 * F, bias=config.feed_forward_bias)
        self.feed_forward_out = nn.Linear(F, D, bias=config.feed_forward_bias)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, plan: Plan, only_first: bool = False) -> Tensor:
        """Return (T, D) from (T, D), or (B, D), the rows of the first tokens, with `only_first`."""
        mixed = self._attend(x, plan)
        if only_first:
            x, mixed = (rows.index_select(0, plan.first) for rows in (x, mixed))
        x = x + self.attention_out(mixed)
        value, gate = self.feed_forward_in(self.feed_forward_norm(x)).chunk(2, dim=1)
        out: Tensor = x + self.feed_forward_out(self.dropout(self.activation(value) * gate))
        return out

    def _attend(self, x: Tensor, plan: Plan) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).view(len(x), 3, self.heads, -1).unbind(1)  # (T, H, E)
        turned = plan.rotation(self.theta, q.shape[-1])
        q, k = (rotate(y.float(), turned).to(v.dtype) for y in (q, k))
        return attend_freely(q, k, v, plan, self.reach, self.attention_dropout if self.training else 0.0)
