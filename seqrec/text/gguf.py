"""Language models in llama.cpp's GGUF format, converted once into folders that `transformers` reads.

Quantised weights are written as the numbers that they stand for.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import exclusive, hash_file
from seqrec.basics.paths import user_cache

log = logging.getLogger(__name__)
SUFFIX = ".gguf"


def find_gguf(file: Path) -> Path:
    """Return the folder of a converted file; convert it first, in float16.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it cannot be converted.
    """
    if not file.is_file():
        raise MissingFileError(f"there is no file {file}")
    return convert_once(f"gguf-{hash_file(file)[:16]}", file, lambda folder: convert(file, folder, "float16"))


def convert_once(name: str, file: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder of a name in the user's cache; `make` writes it, unless it is there."""
    folder = user_cache() / "backbones" / name
    if folder.is_dir():
        return folder
    with exclusive(folder.with_name(f".{name}.lock"), f"waiting for another process that converts {file.name}"):
        if not folder.is_dir():
            log.info("converting %s into %s, once", file.name, folder)
            whole = folder.with_name(f".{name}.whole")
            shutil.rmtree(whole, ignore_errors=True)
            make(whole)
            whole.rename(folder)
    return folder


def convert(file: Path, folder: Path, dtype: str, end: str | None = None, padding: str | None = None) -> None:
    """Write configuration, weights and tokenizer.

    Args:
        file: A decoder.
        folder: To be made.
        dtype: Of the weights, by torch's name.
        end: Token that ends a text, if the file names another one.
        padding: The same of the token that fills up.

    Raises:
        UserError: If it is no file that transformers converts.
    """
    import safetensors.torch
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # its readers raise errors of every kind for a damaged file
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{file} can't be converted from GGUF ({said}): give another file") from error
    tokenizer.eos_token, tokenizer.pad_token = end or tokenizer.eos_token, padding or tokenizer.pad_token
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config["architectures"] = [type(model).__name__]
    left_out = ("lm_head",) if model.config.tie_word_embeddings else ()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if not name.startswith(left_out)}
    tokenizer.save_pretrained(folder)
    model.config.__class__.from_dict(config).save_pretrained(folder)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
