"""PerSRec's models by their equations, place by place, with a dense mask."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PerSRec.blocks import BlockEncoder
from PerSRec.language_model import LanguageModelEncoder
from PerSRec.model import HistoryModel, build_encoder
from PerSRec.options import ModelOptions
from seqrec.nn.segments import Group, Window


def sees(window: Window) -> Tensor:
    """Return which place sees which, (S+K, S+K) bool, place by place from the rule."""
    segment: list[
        tuple[int, bool]
    ] = []  # of each place: the segment that it lies in or closes, and whether it is a token
    groups = [*window.groups, Group(window.length, 0)]
    for slot in range(window.length):
        number = sum(offset <= slot for offset, _ in window.groups)
        segment.append((number, False))
        if slot + 1 == groups[number].offset:
            segment += [(number, True)] * groups[number].size
    mask = torch.zeros(len(segment), len(segment), dtype=torch.bool)
    for q, (own, _) in enumerate(segment):
        for k, (other, is_token) in enumerate(segment[: q + 1]):
            mask[q, k] = other == own or is_token
    return mask


def model_of(window: Window, **options: Any) -> HistoryModel:
    """Return a model in which nothing is 0 or 1 by chance."""
    torch.manual_seed(0)
    model = HistoryModel(
        30, build_encoder(ModelOptions(**{"hidden_units": 8, "n_layers": 3, **options}), window)
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.requires_grad_(False)


def by_the_equations(
    model: HistoryModel,
    items: list[int],
    seconds: Tensor,
    *,
    tokens_seen: bool = True,
    divisors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs of one history's rows, (E, D), and which rows are events, with a dense mask.

    Args:
        model: Any but over texts.
        items: Of the history, S at most.
        seconds: Their times.
        tokens_seen: Whether a token is seen by any other row.
        divisors: (S+K,) that hstu's sums at a place are divided by, S + K if not given.
    """
    encoder = model.encoder
    window = encoder.window
    n, S, K = len(items), window.length, window.num_tokens
    slots = torch.full((S + K,), -1)
    is_token = torch.zeros(S + K, dtype=torch.bool)
    is_token[window.token_places] = True
    slots[~is_token] = torch.arange(S)
    places = torch.arange(S + K)[is_token | (slots >= S - n)]
    event = ~is_token[places]
    x = torch.zeros(len(places), encoder.width)
    x[event] = model.item_embedding.weight[items]
    if encoder.tokens is not None:
        x[~event] = encoder.tokens
    times, latest = torch.zeros(len(places), dtype=torch.int64), seconds[0]
    number = iter(seconds)
    for row, is_event in enumerate(event):
        latest = next(number) if is_event else latest
        times[row] = latest
    mask = sees(window)[places][:, places].float()
    if not tokens_seen:
        mask[:, ~event] = torch.eye(len(places))[:, ~event]
    divisors = torch.full((S + K,), S + K) if divisors is None else divisors
    if isinstance(encoder, LanguageModelEncoder):
        return by_the_library(encoder, x, places, mask), event
    assert isinstance(encoder, BlockEncoder)
    options = encoder.options
    H = options.n_heads
    if options.model == "sasrec" and encoder.norm is not None:
        x = encoder.norm(x + encoder.places.weight[places])
    else:
        x = x * options.hidden_units**0.5 + encoder.places.weight[places]
    for block in encoder.blocks:
        b: Any = block
        if options.block != "post_norm":
            x = b.block.read(x, None, lambda asked, events, b=b: densely(b.block, asked, events, mask))
            continue
        if options.model == "sasrec":
            q, (k, v) = b.query(x), b.key_value(x).chunk(2, dim=1)
            q, k, v = (part.unflatten(1, (H, -1)).transpose(0, 1) for part in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, mask.bool()).transpose(0, 1).flatten(1)
            x = b.attention_norm(x + b.attention_out(mixed))
            x = b.feed_forward_norm(x + b.feed_forward(x))
            continue
        normed = F.layer_norm(x, x.shape[1:], eps=1e-6)
        made = F.silu(torch.cat([b.gate_query(normed), b.key_value(normed)], dim=1)).chunk(4, dim=1)
        u, q, k, v = (part.unflatten(1, (H, -1)).transpose(0, 1) for part in made)
        scores = q @ k.transpose(1, 2)
        if options.enable_relative_attention_bias:
            scores = scores + b.position_bias[(places[:, None] - places).clamp(min=0)]
        if options.time_bias:
            apart = (times[:, None] - times).abs().clamp(min=1)
            scores = scores + b.time_bias[(apart.float().log() / 0.301).long().clamp(max=128)]
        mixed = (F.silu(scores) * mask @ v / divisors[places, None]).transpose(0, 1).flatten(1)
        mixed = F.layer_norm(mixed, mixed.shape[1:], eps=1e-6)
        x = x + b.out(u.transpose(0, 1).flatten(1) * mixed)
    return encoder.last_norm(x), event


def densely(block: Any, asked: Tensor, events: Tensor, mask: Tensor) -> Tensor:
    """Return what a block of SASRec's mixes under a dense mask, (E, D)."""
    parts = block.query(asked), *block.key_value(events).chunk(2, dim=1)
    q, k, v = (part.unflatten(1, (block.num_heads, -1)).transpose(0, 1) for part in parts)
    mixed = F.scaled_dot_product_attention(q, k, v, mask.bool()).transpose(0, 1).flatten(1)
    out: Tensor = block.attention_out(mixed)
    return out


def by_the_library(encoder: LanguageModelEncoder, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Return the (E, D) states that the library's own model has under a dense mask."""
    from transformers import LlamaModel

    model = LlamaModel._from_config(encoder.blocks.architecture.config, attn_implementation="eager").eval()
    model.load_state_dict(encoder.blocks.model.state_dict(), strict=False)
    hidden = (1 - mask) * torch.finfo(torch.float32).min
    states: Tensor = model(inputs_embeds=x[None], position_ids=places[None], attention_mask=hidden[None, None])[0][0]
    return states
