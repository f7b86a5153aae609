"""Reading checkpoints, as tensors and plain values only."""

import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.tensors import read_torch


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, reading tensors only.

    Raises:
        MissingFileError: If there is none.
        UserError: If the file is damaged, or no checkpoint.
    """
    found = find_checkpoint(path)
    if found is None:
        raise MissingFileError(f"{path} does not exist: the run has not validated an epoch yet; run it with --resume")
    if found.is_dir():
        return consolidate(found)
    state: dict[str, Tensor] = read_checkpoint(found)["state_dict"]
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint file holds: the weights as `state_dict`, and perhaps more.

    Raises:
        UserError: If the file is damaged, or no checkpoint.
    """
    repair = "the file is damaged or no checkpoint of this project; --overwrite the run to start it again"
    found = read_torch(path, repair)
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds no state_dict of tensors: {repair}")
    return found  # type: ignore[no-any-return]


def find_checkpoint(path: Path) -> Path | None:
    """Return a checkpoint, or the one before it if a kill came between two renames; None if there is none."""
    return next((place for place in (path, place_before(path)) if place.exists()), None)


def consolidate(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a DeepSpeed checkpoint by name, whole and in float32.

    Raises:
        UserError: If the folder is no complete DeepSpeed checkpoint, or holds more than tensors and plain values.
    """
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    try:
        with tensors_only(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            state: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(folder))
    except (ValueError, FileNotFoundError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{folder} is no complete DeepSpeed checkpoint ({str(error).splitlines()[0][:120]}): give the folder that "
            "has the file `latest`"
        ) from error
    return state


def place_before(path: Path) -> Path:
    """Return the temporary place of a checkpoint that is being replaced."""
    return path.with_name(f".{path.name}.old")


@contextmanager
def tensors_only() -> Iterator[None]:
    """Restrict `torch.load` to tensors, plain values and a few types of DeepSpeed, whatever its caller asks for."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    name, before = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
