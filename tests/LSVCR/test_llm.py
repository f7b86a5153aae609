"""Language models by `transformers`: without padding, padded, and with code of their own."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from LSVCR.align_model import LLM
from LSVCR.align_module import open_alignment
from LSVCR.align_options import LLMOptions
from LSVCR.other_llm import open_llm
from seqrec.basics.errors import UserError
from seqrec.data.batches import BatchKey
from seqrec.data.comments import Comments
from seqrec.text.blocks import Architecture
from seqrec.text.texts import Texts
from tests.LSVCR.aligning import config_of, losses_of, make_llama, make_tube, opened, with_an_end
from tests.tiny_models import write_model


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    return make_tube(tmp_path_factory.mktemp("alignment"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llm"))


def test_the_language_model_is_that_of_transformers(comments: Comments, llama: Path) -> None:
    module, cases = opened(comments, config_of(llama, llm=LLMOptions(model_name_or_path=str(llama), lora_r=0)))
    for _, parameter in module.named_parameters():
        parameter.requires_grad_(False)
    model, _ = open_alignment(module.config, comments)  # with the weights of the files
    model.eval()
    theirs = transformers.LlamaForCausalLM.from_pretrained(llama).eval()
    batch = cases[BatchKey(np.array([0, 3, len(cases) - 2]), 0, 0)]
    users, loss = model.read_users(batch)
    total, count = 0.0, 0
    for number in range(3):
        first, last = batch.prompts.offsets[number : number + 2].tolist()
        tokens = batch.prompts.values[first:last][None]
        start = int(batch.ends[number]) + 1 - first
        labels = tokens.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            out = theirs(input_ids=tokens, labels=labels, output_hidden_states=True)
        total, count = total + float(out.loss) * (tokens.shape[1] - start), count + tokens.shape[1] - start
        expected = model.contrast_adapter(out.hidden_states[-1][0, start - 1])
        torch.testing.assert_close(users[number], expected, atol=1e-5, rtol=1e-4)
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5)
    vectors = model.llm.encode(batch.texts)
    for number in range(len(vectors)):
        tokens = batch.texts.values[slice(*batch.texts.offsets[number : number + 2].tolist())][None]
        with torch.no_grad():
            states = theirs.model(input_ids=tokens).last_hidden_state[0]
        torch.testing.assert_close(vectors[number], states.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_the_first_blocks_alone_are_a_model(llama: Path) -> None:
    options = LLMOptions(model_name_or_path=str(llama), llm_num_blocks=2, llm_last_n_unfreeze=0, lora_r=0)
    texts = [[5, 6, 7], [8]]
    llm = LLM(Architecture.read(llama), options).eval()
    found = llm.encode(Texts(torch.tensor([5, 6, 7, 8]), torch.tensor([0, 3, 4])))
    model = transformers.LlamaModel.from_pretrained(llama, num_hidden_layers=2).eval()
    with torch.no_grad():
        for row, text in zip(found, texts, strict=True):
            torch.testing.assert_close(row, model(torch.tensor([text])).last_hidden_state[0].mean(dim=0))
    assert llm.num_blocks == 2
    with pytest.raises(UserError, match="--llm_num_blocks must be 1 to 3, the model's blocks, got 4"):
        LLM(Architecture.read(llama), LLMOptions(model_name_or_path=str(llama), llm_num_blocks=4))


@pytest.mark.parametrize("lora_r", [0, 4])
def test_a_decoder_of_another_kind_is_padded(lora_r: int, comments: Comments, tmp_path: Path) -> None:
    folder = with_an_end(write_model(tmp_path / "neox", "gpt_neox"))
    options = LLMOptions(model_name_or_path=str(folder), llm_last_n_unfreeze=2, lora_r=lora_r, lora_dropout=0)
    llm = open_llm(folder, options).eval()
    theirs = transformers.GPTNeoXForCausalLM.from_pretrained(folder).eval()
    texts = [[5, 6, 7, 8, 9], [8], [4, 4, 7]]
    given = Texts(torch.tensor([*texts[0], *texts[1], *texts[2]]), torch.tensor([0, 5, 6, 9]))
    states, plan = llm(given)
    found, place = llm.encode(given), plan.token_order.argsort()
    start = 0
    for row, text in enumerate(texts):
        with torch.no_grad():
            out = theirs(input_ids=torch.tensor([text]), output_hidden_states=True)
        mine = states[place[start : start + len(text)]]
        torch.testing.assert_close(mine, out.hidden_states[-1][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(llm.words(mine), out.logits[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[row], out.hidden_states[-1][0].mean(dim=0), atol=1e-5, rtol=1e-4)
        start += len(text)
    learning = {name for name, parameter in llm.named_parameters() if parameter.requires_grad}
    assert learning and all(("layers.1." in name or "layers.2." in name) for name in learning)
    assert all("lora_" in name for name in learning) == bool(lora_r)
    llm.train().encode(given).sum().backward()
    assert all(p.grad is not None for name, p in llm.named_parameters() if name in learning and "lora_A" not in name)
    module, cases = opened(comments, config_of(folder, llm=options))
    batch = cases[BatchKey(np.array([0, 3, len(cases) - 2]), 0, 0)]
    assert losses_of(module, batch)["returned"] > 0
    with pytest.raises(UserError, match="--llm_num_blocks must be 1 to 3"):
        open_llm(folder, replace(options, llm_num_blocks=4))


def test_code_that_a_model_brings_is_not_run(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    shutil.copytree(llama, folder)
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    told = {"model_type": "strange", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="brings code of its own, which is run with --trust_remote_code alone"):
        open_llm(folder, LLMOptions(model_name_or_path=str(folder)))
    assert not ran.exists()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match="can't be read as a decoder"):
        open_llm(folder, LLMOptions(model_name_or_path=str(folder)))
