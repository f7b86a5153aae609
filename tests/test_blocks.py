"""Language models on ragged batches, whole and cut: equal to `transformers`."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.nn.ragged import Plan, plan_batch
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.options import TextPooling
from seqrec.text.pooling import pool_texts
from seqrec.text.reading import Extra, TextReading
from tests.tiny_models import BLOCKS, ENCODERS, KINDS, write_model

LENGTHS = (7, 3, 7, 12, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write_model(root / kind, kind) for kind in KINDS}


def batch() -> tuple[Tensor, Plan]:
    """Return token ids, text after text, and the plan of the batch."""
    lengths = torch.tensor(LENGTHS)
    ids = torch.randint(3, 30_000, (int(lengths.sum()),), generator=torch.Generator().manual_seed(1))
    return ids, plan_batch(lengths, torch.device("cpu"))


def unsorted(states: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Return the states of each text from those in the order of the plan."""
    found: tuple[Tensor, ...] = torch.empty_like(states).index_copy(0, plan.token_order, states).split(list(LENGTHS))
    return found


def library_model(folder: Path) -> torch.nn.Module:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    if getattr(getattr(model, "decoder", None), "project_out", None) is not None:
        model.decoder.project_out = None  # an item's vector has the width of the states
    assert isinstance(model, torch.nn.Module)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_in_a_chain_are_the_whole_model_to_the_bit(folders: dict[str, Path], kind: str) -> None:
    architecture = Architecture.read(folders[kind])
    weights = architecture.weight_files()
    ids, plan = batch()
    reading, words = TextReading(plan), ids[plan.token_order]
    whole = Blocks(architecture, 0, BLOCKS).load(weights)(words, reading)
    for cut in range(1, BLOCKS):
        lower = Blocks(architecture, 0, cut).load(weights)(words, reading)
        upper = Blocks(architecture, cut, BLOCKS).load(weights)(lower, reading)
        assert torch.equal(upper, whole)
        assert not torch.equal(lower, whole)
    one_by_one = Blocks(architecture, 0, 0).load(weights)(words, reading)
    one_by_one = Blocks(architecture, 0, 1, embeddings=False).load(weights)(one_by_one, reading)
    for block in range(1, BLOCKS):
        one_by_one = Blocks(architecture, block, block + 1).load(weights)(one_by_one, reading)
    assert torch.equal(one_by_one, whole)
    # And what the library itself computes for each text.
    model = library_model(folders[kind])
    for text, states in zip(ids.split(list(LENGTHS)), unsorted(whole, plan), strict=True):
        expected = model(input_ids=text[None]).last_hidden_state[0]
        torch.testing.assert_close(states, expected, rtol=0, atol=2e-6)
    alone = TextReading(plan_batch(torch.tensor([12]), torch.device("cpu")))
    text = ids[17:29]
    single = Blocks(architecture, 0, BLOCKS).load(weights)(text, alone)
    assert torch.equal(single, model(input_ids=text[None]).last_hidden_state[0])


@torch.no_grad()
def test_the_embeddings_alone_are_what_the_first_block_reads(folders: dict[str, Path]) -> None:
    architecture = Architecture.read(folders["opt"])
    weights = architecture.weight_files()
    ids, plan = batch()
    found = unsorted(Blocks(architecture, 0, 0).load(weights)(ids[plan.token_order], TextReading(plan)), plan)
    table = weights.read(["decoder.embed_tokens.weight", "decoder.embed_positions.weight"], torch.float32)
    words, places = table.values()
    for text, states in zip(ids.split(list(LENGTHS)), found, strict=True):
        assert torch.equal(states, words[text] + places[torch.arange(len(text)) + 2])  # OPT's positions begin at 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_checkpoint_s(folders: dict[str, Path], kind: str) -> None:
    architecture = Architecture.read(folders[kind])
    weights = architecture.weight_files()
    whole = library_model(folders[kind]).state_dict()
    found: set[str] = set()
    for first, last in ((0, 0), (0, 1), (1, BLOCKS), (0, BLOCKS)):
        part = Blocks(architecture, first, last, pooler=kind == "bert").load(weights)
        for name, tensor in part.model.state_dict().items():
            if not name.endswith("project_out.weight"):
                assert torch.equal(tensor, whole[name]), name
        assert not any(buffer.is_meta for buffer in part.buffers())
        found |= set(part.model.state_dict())
    missing = {name for name in whole if "pooler" not in name} - found
    assert not missing


def test_shards_old_files_and_old_names_are_read(tmp_path: Path, folders: dict[str, Path]) -> None:
    shards = write_model(tmp_path / "shards", "llama", max_shard_size="400KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    state = safetensors.torch.load_file(folders["bert"] / "model.safetensors")
    old = tmp_path / "old"
    old.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (old / file).write_bytes((folders["bert"] / file).read_bytes())
    rename = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    torch.save(
        {"bert." + next((n.replace(a, b) for a, b in rename.items() if n.endswith(a)), n): t for n, t in state.items()},
        old / "pytorch_model.bin",
    )
    ids, plan = batch()
    for kind, folder in (("llama", shards), ("bert", old)):
        results = []
        for place in (folders[kind], folder):
            architecture = Architecture.read(place)
            blocks = Blocks(architecture, 0, BLOCKS).load(architecture.weight_files())
            with torch.no_grad():
                results.append(blocks(ids[plan.token_order], TextReading(plan)))
        assert torch.equal(*results)
    assert (
        Architecture.read(shards).weight_files().sha256() != Architecture.read(folders["llama"]).weight_files().sha256()
    )


def test_other_models_and_damaged_ones_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"of type 'gpt2', expected one of bert, llama, .*--plm_name"):
        Architecture.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json can't be read"):
        Architecture.read(tmp_path)
    architecture = Architecture.read(folders["bert"])
    for first, last in ((1, 1), (2, 1), (0, BLOCKS + 1), (-1, 2)):
        with pytest.raises(UserError, match=f"are no range of the model's {BLOCKS}"):
            Blocks(architecture, first, last)
    state = safetensors.torch.load_file(folders["bert"] / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folders["bert"] / "config.json").read_bytes())
    lost = "encoder.layer.1.output.dense.bias"
    safetensors.torch.save_file({name: t for name, t in state.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"its weights lack 1: {lost}"):
        Blocks(architecture, 0, BLOCKS).load(Architecture.read(tmp_path).weight_files())
    Blocks(architecture, 2, BLOCKS).load(Architecture.read(tmp_path).weight_files())  # which it does not need
    safetensors.torch.save_file(state | {lost: torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"{lost} have other shapes than config\.json says"):
        Blocks(architecture, 0, BLOCKS).load(Architecture.read(tmp_path).weight_files())
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"can't be read"):
        Architecture.read(tmp_path).weight_files()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["opt", "opt-350m", "llama", "qwen3"])
def test_prompts_are_the_library_s_past_keys_and_a_second_pass(folders: dict[str, Path], kind: str) -> None:
    """Prefix: keys and values that are there already. Suffix and last query: a second pass that reads both."""
    from transformers import DynamicCache

    architecture = Architecture.read(folders[kind])
    P, Q, K = 4, 2, 2
    heads, width = architecture.kv_shape
    draw = torch.Generator().manual_seed(2)
    prefix, suffix = (
        [tuple(torch.randn(n, heads, width, generator=draw) for _ in range(2)) for _ in range(BLOCKS)] for n in (P, Q)
    )
    extras = {i: Extra(prefix[i], suffix[i]) for i in range(BLOCKS)}  # type: ignore[arg-type]
    queries = torch.randn(K, architecture.word_width, generator=draw)
    blocks = Blocks(architecture, 0, BLOCKS).load(architecture.weight_files())
    ids, _ = batch()
    rows = [torch.cat([blocks.word_embeddings(text), queries]) for text in ids.split(list(LENGTHS))]
    plan = plan_batch(torch.tensor(LENGTHS) + K, torch.device("cpu"))
    states = blocks(torch.cat(rows)[plan.token_order], TextReading(plan, extras, K))
    found = torch.empty_like(states).index_copy(0, plan.token_order, states).split([n + K for n in LENGTHS])

    model = library_model(folders[kind])
    for text, own in zip(ids.split(list(LENGTHS)), found, strict=True):
        cache = DynamicCache()
        for number, (key, value) in enumerate(prefix):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], number)
        first = model(input_ids=text[None], past_key_values=cache, use_cache=True)
        torch.testing.assert_close(own[: len(text)], first.last_hidden_state[0], rtol=0, atol=5e-6)
        for number, (key, value) in enumerate(suffix):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], number)
        place = P + len(text)  # the suffix has no positions
        second = model(
            inputs_embeds=queries[None],
            past_key_values=cache,
            attention_mask=torch.ones(1, P + len(text) + Q + K),
            position_ids=torch.arange(place, place + K)[None],
        )
        torch.testing.assert_close(own[len(text) :], second.last_hidden_state[0], rtol=0, atol=5e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_prefix_is_seen_by_every_token_of_an_encoder(folders: dict[str, Path], kind: str) -> None:
    """Against attention by hand: a block whose keys and values have the prefix before the text's own."""
    architecture = Architecture.read(folders[kind])
    heads, width = architecture.kv_shape
    blocks = Blocks(architecture, 0, BLOCKS).load(architecture.weight_files())
    ids, plan = batch()
    draw = torch.Generator().manual_seed(2)
    extras = {
        i: Extra((torch.randn(3, heads, width, generator=draw), torch.zeros(3, heads, width)), None)
        for i in range(BLOCKS)
    }
    plain = blocks(ids[plan.token_order], TextReading(plan))
    prompted = blocks(ids[plan.token_order], TextReading(plan, extras))
    assert (plain - prompted).abs().max() > 1e-3
    # Keys that no query matches take nothing away.
    silent = {i: Extra((torch.full((3, heads, width), 0.0), torch.zeros(3, heads, width)), None) for i in extras}
    attended = blocks(ids[plan.token_order], TextReading(plan, silent))
    assert (plain - attended).abs().max() > 1e-4
    alone = plan_batch(torch.tensor([7]), torch.device("cpu"))
    one = blocks(ids[:7], TextReading(alone, extras))
    torch.testing.assert_close(unsorted(prompted, plan)[0], one, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_queries", [0, 2])
def test_pooling(num_queries: int) -> None:
    lengths = torch.tensor(LENGTHS) + num_queries
    plan = plan_batch(lengths, torch.device("cpu"))
    states = torch.randn(int(lengths.sum()), 4, generator=torch.Generator().manual_seed(3))
    texts = torch.empty_like(states).index_copy(0, plan.token_order, states).split(lengths.tolist())
    by_hand: dict[TextPooling, list[Tensor]] = {
        "mean": [text[: len(text) - num_queries].mean(0) for text in texts],
        "last": [text[-1] for text in texts],
        "cls": [text[0] for text in texts],
        "pooler": [2 * text[0] for text in texts],
    }
    by_hand["mean_last"] = [torch.cat(pair) for pair in zip(by_hand["mean"], by_hand["last"], strict=True)]
    for pooling, expected in by_hand.items():
        found = pool_texts(states, plan, pooling, lambda first: 2 * first, num_queries)
        torch.testing.assert_close(found[plan.order.argsort()], torch.stack(expected))


def test_a_text_may_not_exceed_a_window(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mistral")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 8}))
    architecture = Architecture.read(folder)
    blocks = Blocks(architecture, 0, BLOCKS).load(architecture.weight_files())
    ids, plan = batch()
    with pytest.raises(UserError, match="attends to 8 tokens, and is given 12: shorten --tokenized_len"):
        blocks(ids[plan.token_order], TextReading(plan))
