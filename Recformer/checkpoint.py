"""Reading and writing weights: files of tensors by name, never of code."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from Recformer.config import RecformerConfig
from Recformer.lora import merge_lora
from Recformer.model import RecformerForSeqRec
from seqrec.errors import MissingFileError, UserError
from seqrec.files import write_atomically, write_json
from seqrec.names import check_name
from seqrec.opening import describe, read_json_object, read_tensors

log = logging.getLogger(__name__)

WRAPPERS = ("_forward_module.", "module.", "model.")  # DeepSpeed, DataParallel, Lightning
NESTINGS = ("state_dict", "model_state_dict", "module")
IGNORED = re.compile(r"lm_head\.|item_table$|item_embedding\.weight$|(embeddings\.)?position_ids$|.*\.position_ids$")


def save_checkpoint(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name to a file that is whole or absent."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with write_atomically(path) as file:
        torch.save(tensors, file)


def save_folder(folder: Path, config: RecformerConfig, state: Mapping[str, Tensor]) -> None:
    """Write an encoder's config.json and model.safetensors, each whole or not at all."""
    write_json(folder / "config.json", config.to_dict())
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
            return {key: value for shard in _shards(index) for key, value in load_checkpoint(folder / shard).items()}
    raise MissingFileError(
        f"{folder} has neither model.safetensors nor pytorch_model.bin: download the weights too, or give those that "
        "save_longformer_ckpt.py wrote as --longformer_ckpt"
    )


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load an encoder's weights in place; every parameter must be there, with its shape.

    Low-rank updates are added to the model's own weights, which are then to be those that they are updates of. Takes
    the bare encoder (`embeddings.*`, `encoder.*`) and any model around it (`longformer.*` beside
    `lm_head.*` or an item table, which are left out and logged).

    Args:
        model: The bare encoder.
        path: See `load_checkpoint`.

    Raises:
        UserError: If names or shapes don't fit; the message lists them.
    """
    state = load_checkpoint(path)
    if any(".lora_" in name for name in state) and any(tensor.is_meta for tensor in model.state_dict().values()):
        raise UserError(f"{path} holds low-rank updates, not the weights of a backbone: give it as --checkpoint")
    prefix = "longformer." if any(name.startswith("longformer.") for name in state) else ""
    state = merge_lora(state, {prefix + name: tensor for name, tensor in model.state_dict().items()})
    inner = {name.removeprefix("longformer."): value for name, value in state.items() if name.startswith("longformer.")}
    outside = [name for name in state if inner and not name.startswith("longformer.")]
    load_strictly(model, inner or state, str(path), outside)


def load_recommender(model: RecformerForSeqRec, path: Path) -> None:
    """Load a recommender's encoder, and its item table where the file has one, in place.

    A table of N rows, as the published code saves it, gets its row of zeros for the padding.

    Args:
        model: Its `config.item_num` is N.
        path: See `load_checkpoint`.

    Raises:
        UserError: If names or shapes don't fit, or the table has neither N nor N + 1 rows.
    """
    load_weights(model.longformer, path)
    table = load_checkpoint(path).get("item_embedding.weight")
    if table is None:
        return
    rows, N = len(table), model.config.item_num
    if rows not in (N, N + 1):
        raise UserError(f"{path} has vectors of {rows} items, the catalogue has {N}: it is of another dataset")
    model.init_item_embedding(table if rows == N + 1 else torch.cat([table.new_zeros(1, table.shape[1]), table]))


def load_strictly(
    model: torch.nn.Module, state: Mapping[str, Tensor], source: str, outside: Iterable[str] = ()
) -> None:
    """Load a state dict in place, or say which names are missing, unexpected or of another shape.

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
            "--model_name_or_path, or convert it with Recformer/save_longformer_ckpt.py"
        )
    if extra:
        log.info("%s: not read: %s", source, ", ".join(extra[:8]))
    if any(tensor.is_meta for tensor in own.values()):
        model.to_empty(device="cpu")  # only now: a configuration may claim sizes that no memory holds
    model.load_state_dict({name: state[name] for name in own})


def _shards(index: Path) -> list[str]:
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
    """Return tensors under their names within the model that was wrapped, floating ones as float32."""
    pattern = re.compile(f"^(?:{'|'.join(map(re.escape, WRAPPERS))})+")
    return {
        pattern.sub("", name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
