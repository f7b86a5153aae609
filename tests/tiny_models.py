"""Tiny language models of random weights, as folders that `transformers` reads."""

from pathlib import Path
from typing import Any

import torch

from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer

BLOCKS = 3
KINDS = ("bert", "roberta", "modernbert", "opt", "opt-350m", "llama", "mistral", "qwen2", "qwen3")
ENCODERS = KINDS[:3]


def write_model(folder: Path, kind: str, seed: int = 0, **saved: Any) -> Path:
    """Write a model with MiniLM's tokenizer, saved by `transformers` itself with the options of `save_pretrained`."""
    import transformers as library

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "vocab_size": 30522,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    inner = {"intermediate_size": 48}
    grouped = inner | {"num_key_value_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    made = {
        "bert": (library.BertModel, library.BertConfig, inner),
        "roberta": (library.RobertaForMaskedLM, library.RobertaConfig, inner),
        "modernbert": (library.ModernBertForMaskedLM, library.ModernBertConfig, inner | ends),
        "opt": (library.OPTForCausalLM, library.OPTConfig, {"ffn_dim": 48, "word_embed_proj_dim": 32}),
        "opt-350m": (
            library.OPTForCausalLM,
            library.OPTConfig,
            {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        ),
        "llama": (library.LlamaForCausalLM, library.LlamaConfig, grouped),
        "gpt_neox": (library.GPTNeoXForCausalLM, library.GPTNeoXConfig, inner),
        "mistral": (library.MistralForCausalLM, library.MistralConfig, grouped),
        "qwen2": (library.Qwen2ForCausalLM, library.Qwen2Config, grouped),
        "qwen3": (library.Qwen3ForCausalLM, library.Qwen3Config, grouped | {"head_dim": 16}),
    }
    model_class, config_class, own = made[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config_class(**sizes, **own))
        with torch.no_grad():
            for parameter in model.parameters():  # larger than a library's, so that parts matter
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder, **saved)
    load_tokenizer(find_backbone(MINILM)).save_pretrained(folder)
    return folder
