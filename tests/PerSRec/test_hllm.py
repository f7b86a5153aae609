"""HLLM: items by one language model, histories by another; whole runs, memories, new items."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from PerSRec.language_model import build_language_model
from PerSRec.module import HLLMModule
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.items.options import ItemLearningOptions, ItemOptions, PreInferenceOptions
from seqrec.items.vectors import TextVectors
from seqrec.nn.losses import LossOptions
from seqrec.nn.segments import Window
from seqrec.text.blocks import Architecture
from seqrec.training.restore import load_run
from seqrec.training.text_module import make_batches
from tests import forked
from tests.histories import as_histories
from tests.interrupted import Command, assert_same_run, kill_at_random_moments
from tests.recommending import assert_recommends_as_it_was_tested
from tests.tiny_models import write_model

NCE = LossOptions(loss="nce", num_negatives=6, temp=0.07)
TOKENS = HistoryOptions(maxlen=6, number_of_user_tokens=2, pretrain_item_num=3)


def config_of(model: Path, user: Path | None = None, cached: bool = False, **items: Any) -> Config:
    """Return the flags of a small HLLM with user tokens; a new Llama reads histories unless `user` does."""
    small = ModelOptions(model="llama", hidden_units=8)
    return Config(
        input_type="text",
        items=ItemOptions(plm_name=str(model), tokenized_len=8, **items),
        cache=PreInferenceOptions(pre_inference=cached),
        model=small if user is None else ModelOptions(model="llama", user_pretrain_dir=str(user)),
        history=TOKENS,
        objective=NCE,
    )


def module_of(config: Config, dataset: Dataset) -> HLLMModule:
    torch.manual_seed(0)
    return HLLMModule(config, dataset).eval()


def fill_new(module: HLLMModule) -> None:
    """Give what no checkpoint holds weights that depend on names alone."""
    for name, parameter in module.named_parameters():
        if not any(part in name for part in (".upper.", ".lower.", ".blocks.")):
            values = np.random.default_rng(len(name)).normal(0, 0.3, tuple(parameter.shape))
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(values))


@pytest.mark.parametrize("kind", ["bert", "opt", "llama"])
def test_the_item_token_reads_the_same_of_cached_and_live_states(kind: str, texts_path: Path, tmp_path: Path) -> None:
    dataset, model = load_dataset(texts_path), write_model(tmp_path / kind, kind)
    tables = []
    for cached in (False, True):
        module = module_of(config_of(model, cached=cached, plm_last_n_unfreeze=1), dataset)
        fill_new(module)
        items = module.model.items
        assert isinstance(items, TextVectors) and (items.lower is None) == cached
        tables.append(module.encode_items())
        alone = module.read_texts(np.array([7]))  # type: ignore[misc]
        torch.testing.assert_close(items(torch.tensor([7]), alone)[0], tables[-1][7], rtol=0, atol=1e-6)
    torch.testing.assert_close(*tables, rtol=0, atol=1e-6)


def test_the_item_token_is_one_more_token_of_the_library_s_model(texts_path: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    dataset, model = load_dataset(texts_path), write_model(tmp_path / "llama", "llama")
    module = module_of(config_of(model, plm_last_n_unfreeze=-1), dataset)
    fill_new(module)
    items = module.model.items
    assert isinstance(items, TextVectors) and items.prompts is not None
    theirs = AutoModel.from_pretrained(model).eval()
    text = module.read_texts(np.array([3])).values  # type: ignore[misc]
    words = torch.cat([theirs.get_input_embeddings()(text), items.prompts.queries])  # type: ignore[list-item]
    state = theirs(inputs_embeds=words[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(items.projection(state), module.encode_items()[3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "opt", "llama"])
def test_a_pretrained_model_reads_histories_with_its_own_weights(kind: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / kind, kind)
    encoder = build_language_model(ModelOptions(model="llama", user_pretrain_dir=str(folder)), Window(9))
    own = encoder.blocks.model.state_dict()
    assert not any("word" in name or "embed_tokens" in name for name in own)
    for name, tensor in Architecture.read(folder).weight_files().read(own, torch.float32).items():
        assert torch.equal(own[name], tensor), name
    new = build_language_model(
        ModelOptions(model="llama", user_pretrain_dir=str(folder), user_llm_init=False), Window(9)
    )
    assert not torch.equal(next(iter(own.values())), next(iter(new.blocks.model.state_dict().values())))
    assert new.width == encoder.width


@pytest.mark.parametrize("kind", ["bert", "opt", "llama"])
def test_a_memory_stands_for_old_events(kind: str, texts_path: Path, tmp_path: Path) -> None:
    from PerSRec.memory import make_memory, open_memory

    dataset, model = load_dataset(texts_path), write_model(tmp_path / kind, kind)
    module = module_of(config_of(model, user=model), dataset).requires_grad_(False)
    fill_new(module)
    histories, rows = dataset.whole_histories(), np.arange(30)
    expected = module.user_vectors(module.make_inputs(histories, rows))
    folder, digest = tmp_path / "memory", module.digest()
    make_memory(module.encoder, module.embed, digest, dataset, histories, folder)
    module.memory = open_memory(module.encoder, digest, dataset, folder)
    found = module.user_vectors(module.make_inputs(histories, rows))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    module.memory.tokens = "zero"
    assert not torch.allclose(module.user_vectors(module.make_inputs(histories, rows)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_type": "longformer"}, "--init_type and --item_lr are for --input_type id"),
        ({"item_emb_token_n": 1}, "is read by blocks that are trained: give --plm_last_n_unfreeze"),
        (
            {"item_emb_token_n": 1, "items": ItemOptions(plm_last_n_unfreeze=1, pooling_method="mean")},
            "--pooling_method mean another",
        ),
        (
            {"input_type": "id", "learning": ItemLearningOptions(start_from=Path("x"))},
            "are for --input_type text, not id",
        ),
    ],
)
def test_flags_that_do_not_fit_one_another(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(**{"input_type": "text", **changes})


def test_a_user_model_decides_its_own_sizes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for --model llama, not hstu"):
        ModelOptions(user_pretrain_dir="smollm2")
    with pytest.raises(UserError, match="decides width, blocks and heads: drop --hidden_units"):
        ModelOptions(model="llama", user_pretrain_dir="smollm2", hidden_units=32)
    with pytest.raises(UserError, match="--no_user_llm_init is for the language model of --user_pretrain_dir"):
        ModelOptions(model="llama", user_llm_init=False)
    folder = write_model(tmp_path / "opt", "opt")
    with pytest.raises(UserError, match="make 999 places"):
        build_language_model(ModelOptions(model="llama", user_pretrain_dir=str(folder)), Window(999))


class TestRuns:
    """Whole runs of an HLLM whose upper block and user model learn."""

    @pytest.fixture(scope="class")
    def command(self, texts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
        """A run that nothing interrupted."""
        root = tmp_path_factory.mktemp("hllm")
        model = write_model(root / "bert", "bert")
        flags = (
            *("--input_type", "text", "--model", "llama", "--hidden_units", "8", "--plm_name", str(model)),
            *("--tokenized_len", "8", "--plm_last_n_unfreeze", "1", "--pre_inference", "--loss", "nce"),
            *("--num_negatives", "8", "--learn_temp", "--num_epochs", "3", "--batch_size", "32", "--item_offset"),
            *("--maxlen", "6", "--number_of_user_tokens", "2", "--pretrain_item_num", "3"),
            *("--export_name", "tuned", "--embedding_dir", str(root / "embedding")),
        )
        found = Command("PerSRec", texts_path, root / "runs", flags, "llama-bert-last1-token-offset")
        found.run()
        return found

    def test_it_recommends_as_it_was_tested(self, command: Command, texts_path: Path) -> None:
        assert command.metrics()["test"]["users"] == 90
        assert_recommends_as_it_was_tested(command.folder, texts_path)

    def test_a_killed_run_goes_on(self, command: Command, tmp_path: Path) -> None:
        flags = tuple(word for word in command.flags if word not in ("--export_name", "tuned"))
        again = Command("PerSRec", command.data, tmp_path / "runs", flags, command.init_type)
        assert kill_at_random_moments(again, np.random.default_rng(0)) >= 1
        assert_same_run(command.folder, again.folder)

    def test_its_vectors_start_other_families(self, command: Command) -> None:
        from seqrec.data.vectors import load_embeddings

        dataset, recommender = load_run(command.folder)
        vectors = load_embeddings("plm-tuned", dataset, command.runs.parent / "embedding")
        module = recommender.module
        assert isinstance(module, HLLMModule)
        torch.testing.assert_close(torch.from_numpy(vectors), module.encode_items(), rtol=0, atol=1e-5)

    def test_old_events_come_from_a_memory(self, command: Command, tmp_path: Path) -> None:
        said = tmp_path / "told"
        forked.run_script("PerSRec/compress.py", command.folder, "--histories", "test", output=said)
        forked.run_script("PerSRec/evaluate.py", command.folder, "--from_cache", output=said)
        assert "90 histories from the memory, 0 read whole" in said.read_text()
        assert "own test: +0.0000 [" in said.read_text()


def test_a_history_does_not_depend_on_its_batch(texts_path: Path, tmp_path: Path) -> None:
    dataset, model = load_dataset(texts_path), write_model(tmp_path / "bert", "bert")
    module = module_of(config_of(model), dataset)
    fill_new(module)
    lists = [[1, 2, 3, 4, 5, 6, 7], [9], [4, 4], [8, 7, 6, 5]]
    histories = as_histories(lists)

    def vectors(rows: list[int]) -> Tensor:
        return module.user_vectors(module.make_inputs(histories, np.array(rows)))

    together = vectors([0, 1, 2, 3])
    for row in range(4):
        torch.testing.assert_close(vectors([row])[0], together[row], rtol=0, atol=1e-5)


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the numbers that are kept for the gradients."""

    def __init__(self) -> None:
        self.numbers = 0
        super().__init__(self.keep, lambda x: x)

    def keep(self, x: Tensor) -> Tensor:
        self.numbers += x.numel()
        return x


@pytest.mark.parametrize("model", ["hstu", "sasrec", "llama"])
def test_what_is_computed_again_has_the_gradients_of_what_is_kept(model: str, texts_path: Path, tmp_path: Path) -> None:
    dataset, folder = load_dataset(texts_path), write_model(tmp_path / "bert", "bert")
    gradients = []
    for again in (False, True):
        config = config_of(folder, plm_last_n_unfreeze=2, plm_gradient_checkpointing=again)
        options = ModelOptions(model=model, hidden_units=8, gradient_checkpointing=again)  # type: ignore[arg-type]
        module = module_of(replace(config, model=options), dataset)
        fill_new(module)
        module.log = lambda *_, **__: None  # type: ignore[method-assign]
        data = make_batches(module, dataset, leave_one_out(dataset)).train
        module.train()
        torch.manual_seed(0)
        kept = Kept()
        with kept:
            loss = module.training_step(data[BatchKey(np.arange(30), 0, 0)])
        loss.backward()
        found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        gradients.append((found, kept.numbers))
    (kept_all, numbers), (computed, fewer) = gradients
    assert kept_all.keys() == computed.keys() and fewer < numbers / 2
    for name, gradient in kept_all.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-5, atol=1e-6)
