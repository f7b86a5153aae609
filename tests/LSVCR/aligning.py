"""What the tests of alignment share: a small dataset, a tiny Llama, and one step by hand."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from LSVCR.align_data import AlignBatch, AlignCases
from LSVCR.align_module import AlignModule, open_alignment
from LSVCR.align_options import AlignConfig, LLMOptions
from LSVCR.options import ModelOptions
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.text.backbones import read_tokenizer
from seqrec.training.options import FitConfig
from tests.tiny_models import write_model

SMALL = ModelOptions(hidden_units=8, inner_size=12, maxlen=6, llm_emb_size=6, dropout_rate=0.0)


def make_tube(folder: Path) -> Comments:
    """Return made-up videos and comments."""
    config = CommentsDemo(name="tube", data_dir=folder, num_users=40, num_videos=100, visits=8, comments_per_video=7)
    return load_comments(load_dataset(prepare(config)))


def make_llama(folder: Path) -> Path:
    """Return the folder of a tiny Llama whose tokenizer ends texts."""
    return with_an_end(write_model(folder / "llama", "llama"))


def with_an_end(folder: Path) -> Path:
    """Let a model's tokenizer end texts, and its prompts be long."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    tokenizer = read_tokenizer(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


def config_of(llama: Path, **options: Any) -> AlignConfig:
    llm = LLMOptions(model_name_or_path=str(llama), lora_dropout=0.0)
    short = {"max_his_len": 4, "tokenized_len": 16, "max_source_length": 300, "max_target_length": 12}
    return AlignConfig(**{"llm": llm, "model": SMALL, **short, "training": FitConfig(num_epochs=1), **options})


def opened(comments: Comments, config: AlignConfig) -> tuple[AlignModule, AlignCases]:
    """Return a module in which nothing that learns is 0 by chance."""
    torch.manual_seed(0)
    model, cases = open_alignment(config, comments)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return AlignModule(model, config), cases


class Alone:
    """Stands for the Trainer of a single process."""

    world_size, global_rank, strategy = 1, 0, None


def losses_of(module: AlignModule, batch: AlignBatch) -> dict[str, float]:
    """Return what a step logs."""
    found: dict[str, float] = {}
    module.log = lambda name, value, **kwargs: found.update({name: float(value)})  # type: ignore[method-assign]
    module._trainer = Alone()  # type: ignore[assignment]
    found["returned"] = float(module.training_step(batch))
    return found
