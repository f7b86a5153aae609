"""Turn a Longformer, RoBERTa or BERT into a Recformer backbone: `python Recformer/save_longformer_ckpt.py --help`.

Writes `<name>.bin`, the weights as `longformer.*` beside the source's `lm_head.*`, and a folder `<name>/` with
configuration and tokenizer. `--longformer_ckpt <name>.bin` of finetune.py reads both.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from Recformer.checkpoint import add_published_names
from Recformer.config import read_config
from Recformer.conversion import convert
from seqrec.basics.checks import require_at_least, require_at_most
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_json
from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer
from seqrec.text.options import Pooling
from seqrec.text.weights import load_folder, save_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """One conversion."""

    model_name_or_path: str = MINILM
    """Source: minilm, a local folder, or the name of a Longformer, RoBERTa or BERT on the Hugging Face hub."""
    output: Path | None = None
    """File to write; by default Recformer/longformer_ckpt/<name>.bin."""
    max_token_num: int = 1024
    """Longest sequence; positions beyond the source's are repeated."""
    attention_window: int = 64
    """Attention window in tokens, both sides together."""
    pooler_type: Pooling | None = None
    """A text's vector: its first token's, or the mean over its tokens. By default what the source was trained for."""
    seed: int = 42
    """Of the item positions."""

    def __post_init__(self) -> None:
        require_at_least(2, self, "max_token_num", "attention_window")
        require_at_most(100_000, self, "max_token_num")


def main(config: Config) -> Path:
    """Write the backbone and return the path of its weights."""
    name = Path(config.model_name_or_path).name
    output = config.output or Path(__file__).resolve().parent / "longformer_ckpt" / f"{name}.bin"
    folder = find_backbone(config.model_name_or_path)
    tokenizer = load_tokenizer(folder)
    changes = {"max_token_num": config.max_token_num, "attention_window": config.attention_window}
    pooler = {} if config.pooler_type is None else {"pooler_type": config.pooler_type}
    model_config = read_config(folder, tokenizer, **changes, **pooler)
    conversion = convert(load_folder(folder), model_config, config.seed)
    beside = output.with_suffix("")
    if beside == output:
        raise UserError(f"--output must be a file with a suffix, such as {output}.bin, got {output}")
    write_json(beside / "config.json", model_config.to_dict())
    tokenizer.save_pretrained(beside)
    encoder = {f"longformer.{key}": tensor for key, tensor in conversion.state.items()}
    save_checkpoint(output, add_published_names(encoder | conversion.head))
    log.info("%s\nwrote %s; configuration and tokenizer are in %s", conversion.summary(), output, beside)
    return output


if __name__ == "__main__":
    run_command(main, Config)
