"""Write a small language model of random weights, to try things out where there is no time for a real one.

python scripts/random_llm.py models/tiny
bash LSVCR/run_lora.sh --dataset comments-demo --model_name_or_path models/tiny --lora_r 0 --llm_emb_size 32
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from seqrec.basics.checks import MAX_SEED, require_at_least, require_at_most
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """A Llama."""

    output: tyro.conf.Positional[Path]
    """Folder to be written; it must not exist."""
    tokenizer: str = "smollm2"
    """Whose tokenizer it has: smollm2, a folder, or a name on the Hugging Face hub."""
    width: int = 64
    """Width of its states, a multiple of --heads."""
    blocks: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads per block."""
    longest: int = 4096
    """Tokens that it has positions for."""
    seed: int = 42
    """Of the weights."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "width", "blocks", "heads", "longest")
        require_at_least(0, self, "seed")
        require_at_most(MAX_SEED, self, "seed")
        if self.width % (2 * self.heads):
            raise UserError(f"--width must be a multiple of twice --heads, {2 * self.heads}, got {self.width}")
        if self.output.exists():
            raise UserError(f"{self.output} exists: give a folder that does not")


def main(config: Config) -> None:
    """Draw the weights and write them, with a tokenizer beside."""
    import torch  # seconds, and not for --help
    from transformers import LlamaConfig, LlamaForCausalLM

    from seqrec.text.backbones import find_backbone, read_tokenizer

    tokenizer = read_tokenizer(find_backbone(config.tokenizer))
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.blocks,
            num_attention_heads=config.heads,
            max_position_embeddings=config.longest,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    part = config.output.with_name(f".{config.output.name}.part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(config.output)
    log.info("%s parameters are in %s", f"{sum(p.numel() for p in model.parameters()):,}", config.output)


if __name__ == "__main__":
    run_command(main, Config)
