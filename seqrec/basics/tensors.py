"""Opening files of tensors that somebody else may have written, as `opening` does the other kinds."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError

TORCH_HINT = "save the model's state_dict() alone"


def read_torch(path: Path, repair: str = TORCH_HINT) -> Any:
    """Return what `torch.save` wrote: tensors and plain values, on the CPU; nothing else is loaded.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If the file is damaged or holds anything else.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {repair}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle is a program and may fail with any error
        # In a damaged archive the reader seeks before its start, which the system calls an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        said = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise UserError(f"{path} is no whole file of tensors that torch.save wrote ({said}): {repair}") from error


def read_tensors(path: Path, repair: str = TORCH_HINT, nestings: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the tensors by name in a .safetensors file or in what `torch.save` wrote, on the CPU.

    Args:
        path: The file; its ending says which of the two.
        repair: What to do about a faulty file, for the message.
        nestings: Keys under which the names may lie, in a dictionary within the dictionary.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is damaged, holds no tensors by name, or holds other than plain arrays of numbers.
    """
    content: Any = _read_safetensors(path, repair) if path.suffix == ".safetensors" else read_torch(path, repair)
    while isinstance(content, dict) and (outer := [key for key in nestings if isinstance(content.get(key), dict)]):
        content = content[outer[0]]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected tensors by name: {repair}")
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name, its keys are {sorted(map(str, content))[:5]}: {repair}")
    for name, tensor in tensors.items():
        check_plain(tensor, f"{path}: {name[:80]!r}", repair)
    return tensors


def check_plain(tensor: Tensor, name: str, repair: str) -> None:
    """Check that a tensor is an array of real numbers in memory.

    Raises:
        UserError: If it is sparse, quantised, complex, or on a device that holds no numbers.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise UserError(f"{name} is {kind}, expected a plain array of numbers: {repair}")


def _read_safetensors(path: Path, repair: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {repair}")
    try:
        return safetensors.torch.load_file(path)
    except OSError:
        raise
    except Exception as error:  # of the header, and of types that torch lacks
        raise UserError(f"{path} is no whole .safetensors file ({str(error)[:120]}): {repair}") from error
