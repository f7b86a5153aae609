"""Turn a pretraining checkpoint into what finetuning takes: `python Recformer/convert_pretrain_ckpt.py --help`.

Without flags it converts the pretraining that ended last.

Reads a Lightning `.ckpt`, a DeepSpeed checkpoint folder, the folder or file that DeepSpeed's `zero_to_fp32.py` makes of
one, and the published `.bin` layouts. Writes the bare encoder, the encoder with its language-model head, and beside the
first a folder of its name with configuration, tokenizer and weights, which --model_name_or_path takes anywhere. Nothing
is left out in silence: what the checkpoint lacks and cannot have been frozen, and what nobody needs, is an error.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from Recformer.backbone import load_pretraining
from Recformer.checkpoint import DECODER, REDUNDANT, add_published_names
from Recformer.config import read_config
from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer
from seqrec.text.lora import merge_lora
from seqrec.text.weights import IGNORED, load_checkpoint, save_checkpoint, save_folder, strip_wrappers
from seqrec.training.checkpoints import consolidate, find_checkpoint

log = logging.getLogger(__name__)
OUTPUTS = Path(__file__).resolve().parent / "pretrain_ckpt"
ENCODER, WHOLE = "recformer_pretrain_ckpt", "seqrec_pretrain_ckpt"
PREFIX = "longformer."


def _path(*constants: str) -> Path | None:
    """Return the path in the first of these environment variables that is set."""
    values = (os.environ.get(constant) for constant in constants)
    return next((Path(value) for value in values if value), None)


@dataclass(frozen=True, slots=True)
class Config:
    """One conversion; each option may be given as the environment variable of its name in capitals, too."""

    pretrained_ckpt_path: Annotated[Path | None, tyro.conf.arg(aliases=["--lightning_ckpt_path"])] = field(
        default_factory=lambda: _path("LIGHTNING_CKPT_PATH", "PRETRAINED_CKPT_PATH")
    )
    """What pretraining left: `checkpoints/best.ckpt`, a DeepSpeed folder, or what zero_to_fp32.py made of it. By
    default that of the pretraining in runs/ that ended last."""
    longformer_ckpt_path: Path | None = field(default_factory=lambda: _path("LONGFORMER_CKPT_PATH"))
    """Backbone as save_longformer_ckpt.py wrote it: gives what was frozen and is therefore missing."""
    longformer_type: Annotated[str | None, tyro.conf.arg(aliases=["--model_name_or_path"])] = field(
        default_factory=lambda: os.environ.get("LONGFORMER_TYPE") or None
    )
    """Backbone that was pretrained: minilm, a local folder, or a model's name on the Hugging Face hub. By default what
    the run records, or minilm."""
    recformer_output_path: Annotated[Path, tyro.conf.arg(aliases=["--output_ckpt_path"])] = field(
        default_factory=lambda: _path("OUTPUT_CKPT_PATH", "RECFORMER_OUTPUT_PATH") or OUTPUTS / f"{ENCODER}.bin"
    )
    """The encoder alone."""
    recformerseqrec_output_path: Annotated[Path, tyro.conf.arg(aliases=["--output_config_path"])] = field(
        default_factory=lambda: _path("OUTPUT_CONFIG_PATH", "RECFORMERSEQREC_OUTPUT_PATH") or OUTPUTS / f"{WHOLE}.bin"
    )
    """The encoder as `longformer.*` and the language-model head, with its decoder."""


def find_latest(runs_dir: Path) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint of the pretraining that ended last, and the flags that it was run with.

    Raises:
        MissingFileError: If there is none.
    """
    ended = list((runs_dir / "Recformer").glob("*/*/metrics.json"))
    for metrics in sorted(ended, key=lambda path: path.stat().st_mtime, reverse=True):
        flags = read_json_object(metrics.with_name("config.json"), "delete the run's folder and run it again")
        checkpoint = find_checkpoint(metrics.parent / "checkpoints" / "best.ckpt")
        if "valid_dataset" in flags and checkpoint is not None:
            return checkpoint, flags
    raise MissingFileError(
        f"{runs_dir / 'Recformer'} holds no pretraining that has ended: run `bash Recformer/lightning_run.sh` first, "
        "or give --pretrained_ckpt_path"
    )


def find_source(config: Config) -> tuple[Path, str, Path | None]:
    """Return the checkpoint, and the backbone's name and file: what was given, or what the last pretraining had.

    Raises:
        MissingFileError: If there is no such checkpoint.
    """
    source, backbone, name = config.pretrained_ckpt_path, config.longformer_ckpt_path, config.longformer_type
    if source is None:
        source, flags = find_latest(ROOT / "runs")
        log.info("converting %s, which ended last", source)
        if name is None and backbone is None:
            name = flags.get("model_name_or_path")
            backbone = None if flags.get("longformer_ckpt") is None else ROOT / flags["longformer_ckpt"]
    if not source.exists():
        raise MissingFileError(
            f"--pretrained_ckpt_path {source} does not exist: give checkpoints/best.ckpt of a pretraining run, or the "
            "folder or file that zero_to_fp32.py wrote"
        )
    return source, name or MINILM, backbone


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Return the weights of any form of a pretraining checkpoint, without the prefixes of what was around them.

    Raises:
        MissingFileError: If there is nothing.
        UserError: If it is no checkpoint.
    """
    if (path / "latest").is_file():
        return strip_wrappers(consolidate(path))
    if path.is_dir():
        files = sorted(path.glob("pytorch_model.*"))
        if not files:
            raise MissingFileError(
                f"{path} has neither `latest`, as a DeepSpeed checkpoint has, nor pytorch_model.bin, as what "
                "zero_to_fp32.py makes of one"
            )
        return load_checkpoint(files[0])
    return load_checkpoint(path)


def complete(found: dict[str, Tensor], backbone: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return the state by the backbone's names, what is missing taken from the backbone where it can have been frozen.

    Args:
        found: What the checkpoint has.
        backbone: A pretraining model's state before training.
        source: Path for messages.

    Raises:
        UserError: If names or shapes are not the backbone's; the message lists them.
    """
    missing = [name for name in backbone if name not in found]
    frozen = [name for name in missing if name.endswith("word_embeddings.weight")]
    unexpected = [name for name in found if name not in backbone and not IGNORED.match(name)]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(backbone[name].shape)}"
        for name in backbone
        if name in found and found[name].shape != backbone[name].shape
    ]
    problems = {
        "missing": [name for name in missing if name not in frozen and not name.startswith("lm_head.")],
        "unexpected": unexpected,
        "of another shape": shapes,
    }
    told = [f"{len(names)} {kind}: {', '.join(names[:6])}" for kind, names in problems.items() if names]
    if told:
        raise UserError(
            f"{source} is not of this backbone; {'; '.join(told)}. "
            "Give the one that was pretrained as --longformer_type"
        )
    heads = [name for name in missing if name.startswith("lm_head.")]
    unused = [name for name in found if name not in backbone and not REDUNDANT.match(name)]
    for names, how in (
        (frozen, "frozen, taken from the backbone"),
        (heads, "not in the checkpoint, left out"),
        (unused, "no part of a Recformer, left out"),
    ):
        if names:
            log.info("%s: %s", how, ", ".join(names))
    kept = {name: found.get(name, backbone[name]) for name in backbone if name not in heads}
    log.info("%d tensors converted, %d of them the encoder's", len(kept), sum(n.startswith(PREFIX) for n in kept))
    return kept


def main(config: Config) -> None:
    """Convert one checkpoint."""
    (source, backbone, file), encoder_path = find_source(config), config.recformer_output_path
    found = read_pretrained(source)
    if not any(name.startswith(PREFIX) for name in found):
        found = {name if IGNORED.match(name) else PREFIX + name: tensor for name, tensor in found.items()}
    model, tokenizer = load_pretraining(
        backbone,
        file,
        untie_decoder=DECODER in found,
        **_limits(backbone, file, found),
    )
    state = complete(merge_lora(found, model.state_dict()), model.state_dict(), source)
    encoder = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    save_checkpoint(encoder_path, add_published_names(encoder))
    save_checkpoint(config.recformerseqrec_output_path, add_published_names(state))
    beside = encoder_path.with_suffix("")
    save_folder(beside, model.longformer.config.to_dict(), encoder)
    tokenizer.save_pretrained(beside)
    log.info("wrote %s, %s and the folder %s", encoder_path, config.recformerseqrec_output_path, beside)


def _limits(backbone: str, file: Path | None, found: dict[str, Tensor]) -> dict[str, Any]:
    """Return the longest sequence that the checkpoint's positions are made for."""
    positions = found.get(PREFIX + "embeddings.position_embeddings.weight")
    if file is not None:
        return {}
    folder = find_backbone(backbone)
    plain = read_config(folder, load_tokenizer(folder), max_token_num=1)
    rows = plain.max_position_embeddings if positions is None else len(positions)
    return {"max_token_num": rows - plain.position_offset}


if __name__ == "__main__":
    run_command(main, Config)
