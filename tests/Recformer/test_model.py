"""The encoder against transformers' Longformer, and the recommender on top of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import Recformer.attention
from Recformer.config import RecformerConfig
from Recformer.library import RecformerForSeqRec
from Recformer.model import Layer, RecformerModel
from seqrec.nn import ragged
from seqrec.nn.dropout import dropout
from seqrec.text.sequences import TokenBatch

W = 8
LENGTHS = [1, W // 2, W - 1, W, W + 1, 2 * W, 2 * W + 1, 3 * W + 5, W]
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 60,
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
}


def small_config(**changes: Any) -> RecformerConfig:
    own = {"position_offset": 2, "cls_token_id": 0, "attention_window": (W,) * 3, "max_token_num": 58}
    return RecformerConfig(**SMALL | own | changes)


def make_batch(lengths: list[int], seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (total,), generator=generator, dtype=torch.int32)

    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(lengths).cumsum(0)])
    return TokenBatch(draw(2, 99), draw(0, 3), draw(0, 51), offsets)


def part_of(batch: TokenBatch, index: int) -> TokenBatch:
    a, b = batch.offsets[index : index + 2].tolist()
    fields = (batch.input_ids[a:b], batch.token_type_ids[a:b], batch.item_position_ids[a:b])
    return TokenBatch(*fields, torch.tensor([0, b - a]))


def shake(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter, biases and norms too, values that matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)


def make_pair() -> tuple[nn.Module, RecformerModel]:
    """A random Longformer, and a Recformer with its weights and item positions of zeros."""
    from transformers import LongformerConfig, LongformerModel

    config = LongformerConfig(**SMALL, attention_window=[W] * 3, type_vocab_size=4)
    theirs: nn.Module = LongformerModel(config, add_pooling_layer=False)
    theirs.eval()
    shake(theirs)
    ours = RecformerModel(small_config()).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    assert missing == ["embeddings.item_position_embeddings.weight"]
    nn.init.zeros_(ours.embeddings.item_position_embeddings.weight)
    return theirs, ours


def run_longformer(model: nn.Module, batch: TokenBatch) -> Tensor:
    fields = batch.padded(pad_token_id=1)
    fields.pop("item_position_ids")
    hidden: Tensor = model(**fields).last_hidden_state
    return hidden


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize(
    ("dense", "block", "granularity"), [(256, 64, 1), (0, 4, 1), (12, 16, 1), (0, 8, 16), (64, 8, 16)]
)
def test_equals_longformer_with_gradients(
    monkeypatch: pytest.MonkeyPatch, dense: int, block: int, granularity: int, all_tokens: bool
) -> None:
    monkeypatch.setattr(Recformer.attention, "DENSE_LENGTH", dense)
    monkeypatch.setattr(Recformer.attention, "BLOCK", block)
    monkeypatch.setattr(ragged, "CPU_GRANULARITY", granularity)
    theirs, ours = make_pair()
    batch = make_batch(LENGTHS)
    expected = run_longformer(theirs, batch)
    real = batch.padded(1)["attention_mask"].bool()
    out = ours(batch, all_tokens)
    torch.testing.assert_close(out.pooled, expected[:, 0], atol=1e-5, rtol=1e-5)
    if all_tokens:
        torch.testing.assert_close(out.tokens, expected[real], atol=1e-5, rtol=1e-5)
    direction = torch.linspace(-1, 1, 24)
    for tokens, first in ((expected[real], expected[:, 0]), (out.tokens, out.pooled)):
        torch.autograd.backward(((tokens if all_tokens else first) * direction).mean())
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        found = gradients[name].grad
        if found is None:  # the last layer's local projections, which no first token depends on
            found = torch.zeros_like(parameter)
        assert parameter.grad is not None
        torch.testing.assert_close(found, parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("pooler_type", ["cls", "mean"])
@pytest.mark.parametrize("granularity", [1, 16])
def test_a_sequence_does_not_see_its_batch(monkeypatch: pytest.MonkeyPatch, pooler_type: Any, granularity: int) -> None:
    monkeypatch.setattr(ragged, "CPU_GRANULARITY", granularity)
    model = RecformerModel(small_config(pooler_type=pooler_type)).eval()
    shake(model)
    batch = make_batch([9, 30, 3, 17, 9])
    together = model(batch).pooled
    for index in range(len(batch)):
        alone = model(part_of(batch, index), all_tokens=True)
        torch.testing.assert_close(together[index], alone.pooled[0], atol=1e-6, rtol=1e-6)
        expected = alone.tokens[0] if pooler_type == "cls" else alone.tokens.mean(0)
        torch.testing.assert_close(together[index], expected, atol=1e-6, rtol=1e-6)


def test_item_positions_and_types_matter() -> None:
    model = RecformerModel(small_config()).eval()
    shake(model)
    batch = make_batch([6])
    plain = model(batch).pooled
    for name in ("token_type_ids", "item_position_ids"):
        fields = {field: getattr(batch, field).clone() for field in TokenBatch.__slots__}
        fields[name][3] += 1
        assert (model(TokenBatch(**fields)).pooled - plain).abs().max() > 1e-3


def test_sequences_must_fit() -> None:
    model = RecformerModel(small_config())
    with pytest.raises(ValueError, match=r"1\.\.58 tokens, got 3\.\.59"):
        model(make_batch([3, 59]))
    with pytest.raises(ValueError, match=r"got 0\.\.3"):
        model(make_batch([3, 0]))


def test_unread_parameters_can_be_frozen() -> None:
    model = RecformerModel(small_config())
    model.freeze_unread()
    torch.autograd.backward(model(make_batch([5, 20])).pooled.sum())
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[-2] for name in frozen} == {"query", "key", "value"} and len(frozen) == 6
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_dropout_keeps_the_mean_and_the_share() -> None:
    torch.manual_seed(0)
    x = torch.ones(40_001, requires_grad=True)
    out = dropout(x, 0.1)
    assert abs((out == 0).float().mean().item() - 0.1) < 0.01
    torch.testing.assert_close(out[out > 0].max().item(), 1 / 0.9, atol=1e-4, rtol=0)
    assert abs(out.mean().item() - 1) < 0.01
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out)
    assert dropout(x, 0.0) is x


def test_dropout_averages_out_in_every_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RecformerModel(small_config(attention_probs_dropout_prob=0.2, num_hidden_layers=1, attention_window=(W,)))
    torch.manual_seed(0)
    layer = model.encoder.layers[0]
    assert isinstance(layer, Layer)
    attention = layer.attention.self
    x = torch.randn(50, 24)
    for dense in (0, 64):
        monkeypatch.setattr(Recformer.attention, "DENSE_LENGTH", dense)
        plan = ragged.plan_batch(torch.tensor([20, 30]), torch.device("cpu"))
        expected = attention.eval()(x, plan)
        attention.train()
        drawn = torch.stack([attention(x, plan) for _ in range(200)])
        assert (drawn.std(0).mean(1) > 0).all()
        assert ((drawn.mean(0) - expected) / drawn.std(0) * 200**0.5).abs().max() < 6


def test_scores_are_cosines_over_the_temperature() -> None:
    model = RecformerForSeqRec(small_config(item_num=5)).eval()
    shake(model)
    vectors = torch.randn(6, 24)
    vectors[0] = 0
    batch = make_batch([4, 12])
    with pytest.raises(ValueError, match="init_item_embedding"):
        model(batch)
    model.init_item_embedding(vectors)
    scores = model(batch)
    users = model.encode(batch)
    assert torch.isneginf(scores[:, 0]).all() and scores[:, 1:].abs().max() <= 20 + 1e-4
    for user in range(2):
        for item in range(1, 6):
            cosine = torch.cosine_similarity(users[user], vectors[item], dim=0)
            torch.testing.assert_close(scores[user, item], cosine / 0.05, atol=1e-4, rtol=1e-5)
    candidates = torch.tensor([[3, 1], [5, 5]])
    torch.testing.assert_close(model(batch, candidates=candidates), scores.gather(1, candidates))
    loss = model(batch, labels=torch.tensor([2, 4]))
    torch.testing.assert_close(loss, -scores.log_softmax(1)[[0, 1], [2, 4]].mean())
    torch.autograd.backward(loss)
    assert model.item_embedding is not None and model.item_embedding.weight.grad is None
    model.init_item_embedding(None)
    assert model.item_embedding.weight.shape == (6, 24) and model.item_embedding.weight.requires_grad
    with pytest.raises(ValueError, match="zeros in row 0"):
        model.init_item_embedding(torch.ones(6, 24))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_window": (8, 8)}, "3 even numbers"),
        ({"attention_window": (8, 8, 7)}, "3 even numbers"),
        ({"num_attention_heads": 5}, "5 attention heads"),
        ({"hidden_act": "swish2"}, "'swish2'"),
        ({"max_token_num": 59}, "needs 61 position rows.*save_longformer_ckpt"),
        ({"item_decay": 1.5}, "item_decay must be at most 1, got 1.5"),
        ({"pooler_type": "max"}, "cls, mean, recency, items, got 'max'"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


@pytest.mark.parametrize("decay", [0.5, 0.7])
@pytest.mark.parametrize("granularity", [1, 16])
def test_recency_pools_items_by_how_recent_they_are(
    monkeypatch: pytest.MonkeyPatch, granularity: int, decay: float
) -> None:
    monkeypatch.setattr(ragged, "CPU_GRANULARITY", granularity)
    model = RecformerModel(small_config(pooler_type="recency", item_decay=decay)).eval()
    shake(model)
    batch = make_batch([8, 1, 5, 8])
    positions = [0, 1, 1, 2, 2, 2, 4, 4, 0, 0, 1, 1, 1, 1, 0, 1, 2, 3, 4, 5, 6, 7]
    batch = replace(batch, item_position_ids=torch.tensor(positions, dtype=torch.int32))
    read = model(batch, all_tokens=True)
    for index, row in enumerate(read.pooled):
        a, b = batch.offsets[index : index + 2].tolist()
        items = torch.tensor(positions[a:b]).clamp(min=1)
        total, mass = torch.zeros(24), 0.0
        for item in items.unique().tolist():
            total += decay**item * read.tokens[a:b][items == item].mean(0)
            mass += decay**item
        torch.testing.assert_close(row, total / mass)
    torch.testing.assert_close(read.pooled[2], read.tokens[9:14].mean(0))  # a single item has the mean of its tokens


def test_config_survives_json() -> None:
    config = small_config(pooler_type="mean", item_num=7)
    assert RecformerConfig.from_dict(config.to_dict() | {"transformers_version": "5"}) == config


@pytest.mark.parametrize("drop", [0.0, 0.1])
@pytest.mark.parametrize("granularity", [1, 16])
def test_autocast_stays_close_to_float32(monkeypatch: pytest.MonkeyPatch, granularity: int, drop: float) -> None:
    monkeypatch.setattr(ragged, "CPU_GRANULARITY", granularity)
    monkeypatch.setattr(Recformer.attention, "DENSE_LENGTH", 20)
    model = RecformerModel(small_config(attention_probs_dropout_prob=drop))
    batch = make_batch([9, 30, 3, 17, 9])
    exact = model.eval()(batch).pooled
    with torch.autocast("cpu", torch.bfloat16):
        cosine = torch.cosine_similarity(model(batch).pooled.float(), exact)
        torch.autograd.backward(model.train()(batch, all_tokens=True).tokens.float().square().mean())
    assert cosine.min() > 0.999
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
