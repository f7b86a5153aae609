"""Weights of the published SASRec: its network, written again, scores as ours does."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SASRec import imported
from seqrec.data.dataset import Dataset
from tests.histories import random_lists
from tests.imported_runs import BLOCKS, ITEMS, MAXLEN, WIDTH, check_refusals, check_run, our_scores


def published_state(items: int = ITEMS, spare_position: bool = False) -> dict[str, Tensor]:
    """Return weights as the published SASRec saves them."""
    shapes: dict[str, tuple[int, ...]] = {
        "item_emb.weight": (items + 1, WIDTH),
        "pos_emb.weight": (MAXLEN + spare_position, WIDTH),
        "last_layernorm.weight": (WIDTH,),
        "last_layernorm.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        for layer, shape in {
            f"attention_layernorms.{block}": (WIDTH,),
            f"forward_layernorms.{block}": (WIDTH,),
            f"attention_layers.{block}.out_proj": (WIDTH, WIDTH),
            f"forward_layers.{block}.conv1": (WIDTH, WIDTH, 1),
            f"forward_layers.{block}.conv2": (WIDTH, WIDTH, 1),
        }.items():
            shapes |= {f"{layer}.weight": shape, f"{layer}.bias": (WIDTH,)}
        shapes[f"attention_layers.{block}.in_proj_weight"] = (3 * WIDTH, WIDTH)
        shapes[f"attention_layers.{block}.in_proj_bias"] = (3 * WIDTH,)
    torch.manual_seed(0)
    state = {name: torch.randn(shape) * 0.4 for name, shape in shapes.items()}
    state["item_emb.weight"][0] = 0
    if spare_position:
        state["pos_emb.weight"][0] = 0
    return state


def published_scores(state: dict[str, Tensor], history: list[int], heads: int) -> Tensor:
    """Return (N+1,) scores after a history of `MAXLEN` events, as published, with torch's attention."""
    positions = state["pos_emb.weight"][-MAXLEN:]
    x = (state["item_emb.weight"][torch.tensor(history)] * WIDTH**0.5 + positions)[None]
    later = torch.ones(MAXLEN, MAXLEN, dtype=torch.bool).triu(1)
    for block in range(BLOCKS):
        attention = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
        prefix = f"attention_layers.{block}."
        attention.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        query = layer_norm(x, state, f"attention_layernorms.{block}")
        x = query + attention(query, x, x, attn_mask=later, need_weights=False)[0]
        x = layer_norm(x, state, f"forward_layernorms.{block}")
        inner = x.transpose(1, 2)
        for number in (1, 2):
            name = f"forward_layers.{block}.conv{number}"
            inner = F.conv1d(inner, state[f"{name}.weight"], state[f"{name}.bias"])
            inner = inner.relu() if number == 1 else inner
        x = x + inner.transpose(1, 2)
    return state["item_emb.weight"] @ layer_norm(x, state, "last_layernorm")[0, -1]


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-8)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("spare_position", [False, True])
def test_published_scores_full_histories_as_published(heads: int, spare_position: bool) -> None:
    state = published_state(spare_position=spare_position)
    lists = random_lists([MAXLEN] * 5)
    ours = our_scores(imported, state, heads, lists)
    theirs = torch.stack([published_scores(state, history, heads)[1:] for history in lists])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_imported_weights_make_a_run_that_is_tested_and_recommends(tiny: Dataset, tmp_path: Path) -> None:
    state = published_state(tiny.num_items)
    check_run("SASRec", state, lambda history: published_scores(state, history, 1), tiny, tmp_path, MAXLEN)


def test_other_weights_are_refused(tiny: Dataset, tmp_path: Path) -> None:
    check_refusals("SASRec", published_state(tiny.num_items + 5), "pos_emb.weight", tiny, tmp_path)
