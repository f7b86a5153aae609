"""Reading and writing weights: files of tensors by name, never of code."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.names import check_name
from seqrec.basics.opening import describe, read_json_object
from seqrec.basics.tensors import read_tensors

log = logging.getLogger(__name__)
WRAPPERS = ("_forward_module.", "module.", "model.")  # DeepSpeed, DataParallel, Lightning
NESTINGS = ("state_dict", "model_state_dict", "module")
IGNORED = re.compile(r"lm_head\.|item_table$|item_embedding\.weight$|(embeddings\.)?position_ids$|.*\.position_ids$")


def save_checkpoint(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name to a file that is whole or absent."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with write_atomically(path) as file:
        torch.save(tensors, file)


def save_folder(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write an encoder's config.json and model.safetensors, each whole or not at all."""
    write_json(folder / "config.json", config)
    with write_atomically(folder / "model.safetensors") as file:
        file.write(safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()}))


def load_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, floating ones as float32, on the CPU.

    Reads `.safetensors` and what `torch.save` wrote; the latter may hold the state dict itself or, as
    DeepSpeed and Lightning do, under an outer key. Prefixes of wrapping modules are taken off the names.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If the file holds no tensors by name.
    """
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {path}: give the path of a .bin, .pt, .ckpt or .safetensors file")
    return strip_wrappers(read_tensors(path, nestings=NESTINGS))


def load_folder(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a Hugging Face folder by name: one file or shards, safetensors before pickles.

    Raises:
        MissingFileError: If the folder has no weights, or not all of them.
        UserError: If a file is damaged, or an index names files that are not in the folder itself.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return load_checkpoint(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return {
                key: value for shard in list_shards(index) for key, value in load_checkpoint(folder / shard).items()
            }
    raise MissingFileError(
        f"{folder} has neither model.safetensors nor pytorch_model.bin: download the weights too, or give those that "
        "save_longformer_ckpt.py wrote as --longformer_ckpt"
    )


def load_strictly(
    model: torch.nn.Module, state: Mapping[str, Tensor], source: str, outside: Iterable[str] = ()
) -> None:
    """Load a state dict in place; refuse missing or unexpected names and other shapes.

    Args:
        model: Receives the weights; memory is set aside for one on the meta device.
        state: Tensors by name.
        source: Where they come from, for the message.
        outside: Names beside `state` in the same file.
    """
    own = model.state_dict()
    extra = [name for name in (*state, *outside) if name not in own]
    unexpected = [name for name in extra if not IGNORED.match(name)]
    missing = [name for name in own if name not in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state
        and (state[name].shape != own[name].shape or state[name].is_floating_point() != own[name].is_floating_point())
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    found = [f"{len(names)} {kind}: {', '.join(names[:6])}" for kind, names in problems.items() if names]
    if found:
        raise UserError(
            f"{source} does not fit the encoder; {'; '.join(found)}. Give the backbone that it was trained from as "
            "--model_name_or_path, or convert the backbone again"
        )
    if extra:
        log.info("%s: not read: %s", source, ", ".join(extra[:8]))
    if any(tensor.is_meta for tensor in own.values()):
        model.to_empty(device="cpu")  # only now: a configuration may claim sizes that no memory holds
    model.load_state_dict({name: state[name] for name in own})


def list_shards(index: Path) -> list[str]:
    """Return the files that an index of weights names."""
    places = read_json_object(index, "download the model again", {"weight_map": dict})["weight_map"]
    for shard in places.values():
        if not isinstance(shard, str):
            raise UserError(f"{index} names {describe(shard)}, expected a file of weights: download the model again")
        check_name(f"{index}: a file of weights", shard)
    if not places:
        raise UserError(f"{index} names no file of weights: download the model again")
    return sorted(set(places.values()))


def strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the name prefixes of wrappers, floating ones as float32."""
    pattern = re.compile(f"^(?:{'|'.join(map(re.escape, WRAPPERS))})+")
    return {
        pattern.sub("", name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
