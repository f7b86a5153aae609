"""scripts/random_llm.py: what it writes is a model that transformers and the project read."""

from pathlib import Path

import pytest
import torch
import transformers

from seqrec.text.blocks import Architecture
from tests import forked
from tests.tiny_models import write_model


def test_a_random_model_is_read_as_any_other(tmp_path: Path) -> None:
    tokenizer, output = write_model(tmp_path / "llama", "llama"), tmp_path / "tiny"
    flags = ("--tokenizer", tokenizer, "--width", "16", "--blocks", "3", "--heads", "2")
    forked.run_script("scripts/random_llm.py", output, *flags, output=tmp_path / "said")
    model = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (16, 3)
    assert Architecture.read(output).is_causal
    names = transformers.AutoTokenizer.from_pretrained(output)
    assert model(torch.tensor([names("a cat")["input_ids"]])).logits.shape[-1] == len(names)
    assert not list(tmp_path.glob(".*"))
    for folder, wrong, message in (
        (output, flags, r"tiny\W+exists:"),
        (tmp_path / "new", ("--width", "18"), "must be a multiple of twice --heads, 8"),
    ):
        with pytest.raises(RuntimeError, match=message):
            forked.run_script("scripts/random_llm.py", folder, *wrong, output=tmp_path / "said")
