"""Weights of the published Bert4Rec: its network, written again, scores as ours does."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from Bert4Rec import imported
from seqrec.data.dataset import Dataset
from tests.histories import random_lists
from tests.imported_runs import BLOCKS, ITEMS, MAXLEN, WIDTH, check_refusals, check_run, our_scores


def published_state(items: int = ITEMS) -> dict[str, Tensor]:
    """Return weights as the published BERT4Rec saves them."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embedding.token.weight": (items + 2, WIDTH),
        "bert.embedding.position.pe.weight": (MAXLEN, WIDTH),
        "out.weight": (items + 1, WIDTH),
        "out.bias": (items + 1,),
    }
    for block in range(BLOCKS):
        prefix = f"bert.transformer_blocks.{block}."
        for number in range(3):
            shapes[f"{prefix}attention.linear_layers.{number}.weight"] = (WIDTH, WIDTH)
            shapes[f"{prefix}attention.linear_layers.{number}.bias"] = (WIDTH,)
        for layer, outs, ins in (
            ("attention.output_linear", WIDTH, WIDTH),
            ("feed_forward.w_1", 4 * WIDTH, WIDTH),
            ("feed_forward.w_2", WIDTH, 4 * WIDTH),
        ):
            shapes |= {f"{prefix}{layer}.weight": (outs, ins), f"{prefix}{layer}.bias": (outs,)}
        for norm in ("input_sublayer", "output_sublayer"):
            shapes |= {f"{prefix}{norm}.norm.{kind}": (WIDTH,) for kind in ("a_2", "b_2")}
    torch.manual_seed(0)
    return {name: torch.randn(shape) * 0.4 for name, shape in shapes.items()}


def published_scores(state: dict[str, Tensor], history: list[int], heads: int) -> Tensor:
    """Return (N+1,) scores after a history, padded on the left as published, with plain matrices."""
    mask_id = len(state["bert.embedding.token.weight"]) - 1
    items = torch.tensor([*history, mask_id][-MAXLEN:])
    items = F.pad(items, (MAXLEN - len(items), 0))
    x = state["bert.embedding.token.weight"][items] + state["bert.embedding.position.pe.weight"]
    for block in range(BLOCKS):
        own = {
            name.removeprefix(f"bert.transformer_blocks.{block}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"bert.transformer_blocks.{block}.")
        }
        parts = [linear(x, own, f"attention.linear_layers.{number}") for number in range(3)]
        query, key, value = (part.view(MAXLEN, heads, -1).transpose(0, 1) for part in parts)
        logits = query @ key.transpose(1, 2) / (WIDTH // heads) ** 0.5
        weights = logits.masked_fill(items == 0, -1e9).softmax(dim=-1)
        mixed = (weights @ value).transpose(0, 1).reshape(MAXLEN, WIDTH)
        x = deviation_norm(x + linear(mixed, own, "attention.output_linear"), own, "input_sublayer")
        inner = F.gelu(linear(x, own, "feed_forward.w_1"), approximate="tanh")
        x = deviation_norm(x + linear(inner, own, "feed_forward.w_2"), own, "output_sublayer")
    return linear(x[-1:], state, "out")[0]


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def deviation_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    scaled = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    return state[f"{name}.norm.a_2"] * scaled + state[f"{name}.norm.b_2"]


def test_published_scores_every_history_as_published() -> None:
    state = published_state()
    lists = random_lists([1, 3, MAXLEN - 1, MAXLEN, 20])
    ours = our_scores(imported, state, 3, lists)
    theirs = torch.stack([published_scores(state, history, 3)[1:] for history in lists])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_imported_weights_make_a_run_that_is_tested_and_recommends(tiny: Dataset, tmp_path: Path) -> None:
    state = published_state(tiny.num_items)
    check_run("Bert4Rec", state, lambda history: published_scores(state, history, 4), tiny, tmp_path, 1)


def test_other_weights_are_refused(tiny: Dataset, tmp_path: Path) -> None:
    check_refusals("Bert4Rec", published_state(tiny.num_items + 5), "bert.embedding.token.weight", tiny, tmp_path)
