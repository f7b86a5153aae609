"""Training whose state is sharded across processes, by DeepSpeed's ZeRO or PyTorch's FSDP2, on GPUs and CPUs.

A DeepSpeed checkpoint is a folder with a part per process. It appears whole or not at all, and is read as tensors and
plain values only; DeepSpeed's own reader would run code of the file. An FSDP2 checkpoint is a single file.
Sources: Rajbhandari et al. (2020), https://arxiv.org/abs/1910.02054; Zhao et al. (2023),
https://arxiv.org/abs/2304.11277.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard, register_fsdp_forward_method

from seqrec.basics.precision import HALVES
from seqrec.training.checkpoints import place_before, tensors_only
from seqrec.training.options import StrategyName, is_sharded


def make_strategy(name: StrategyName) -> str | Strategy:
    """Return the Trainer's strategy of that name."""
    if not is_sharded(name):
        return name
    if name.startswith("fsdp"):
        return FullyShardedStrategy(
            offload=name.endswith("_offload"), tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    offload = name.endswith("_offload")
    return ZeroStrategy(
        stage=3 if "stage_3" in name else 2,
        offload_optimizer=offload,
        offload_parameters=offload and "stage_3" in name,
        logging_batch_size_per_gpu=1,  # the sampler cuts batches, so there is no one size
    )


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes; a module shards itself in `configure_model`, see `share_out`."""

    strategy_name = "fsdp"

    def __init__(self, *, offload: bool, **options: Any) -> None:
        """Keep weights and the optimiser's state in the machine's memory under `offload`."""
        super().__init__(**options)
        self.offload = offload

    def setup_environment(self) -> None:
        """Join the process group, with a shard of every weight in each process."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def share_out(self, module: nn.Module, mesh: DeviceMesh, entries: tuple[str, ...]) -> None:
        """Shard a module's weights block by block; they are gathered when needed.

        Args:
            module: Of which each `ModuleList` holds blocks that run one after another.
            mesh: The processes.
            entries: Methods that use weights and are called from outside.
        """
        policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if self.offload else OffloadPolicy()
        lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
        for block in [block for blocks in lists for block in blocks]:
            fully_shard(block, mesh=mesh, offload_policy=policy)
        fully_shard(module, mesh=mesh, offload_policy=policy)
        for name in entries:
            register_fsdp_forward_method(module, name)


def shard(module: lightning.LightningModule, entries: tuple[str, ...]) -> None:
    """Shard a module's weights over the processes if the Trainer's strategy does so; see `share_out`."""
    strategy = module.trainer.strategy
    if isinstance(strategy, FullyShardedStrategy):
        strategy.share_out(module, strategy.device_mesh["data_parallel"], entries)


class ZeroStrategy(DeepSpeedStrategy):
    """DeepSpeed on CUDA and on the CPU, with checkpoints that are whole or absent."""

    strategy_name = "zero"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The optimiser is the module's own, also where its state is offloaded to the CPU.
        self.config["zero_force_ds_cpu_optimizer"] = False  # type: ignore[index]

    @property
    def root_device(self) -> torch.device:
        """Return the device of this process; DeepSpeed wants an index, and every CPU has number 0."""
        device: torch.device = super().root_device
        return torch.device("cpu", 0) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        """Set up the processes, without Lightning's check for CUDA: DeepSpeed runs on CPUs, too."""
        # Lightning would cast a batch's floats, and rebuild its parts for it: batches hold ids, and parts are frozen.
        self.precision_plugin.convert_input = lambda data: data  # type: ignore[method-assign]
        if isinstance(self.accelerator, CPUAccelerator):
            super(DeepSpeedStrategy, self).setup_environment()
        else:
            super().setup_environment()

    def setup(self, trainer: lightning.Trainer) -> None:
        """Set up the engine, and let steps mix what it keeps in half precision, all weights, with float32."""
        super().setup(trainer)
        dtype, module = HALVES.get(self.precision_plugin.precision), self.lightning_module
        if dtype is not None and module is not None:
            mixed = torch.autocast(self.root_device.type, dtype)
            # Within the steps, as DeepSpeed turns off what is turned on around them.
            for name in ("training_step", "validation_step", "test_step"):
                setattr(module, name, mixed(getattr(module, name)))

    def setup_distributed(self) -> None:
        """Join the process group, without Lightning's check of device numbers on CPUs."""
        if self.root_device.type != "cpu":
            super().setup_distributed()
            return
        import deepspeed

        # Gloo replaces an extension that DeepSpeed would compile, with tools that may be missing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint under a temporary name; rename it when all processes have written their part."""
        target = Path(self.broadcast(filepath))
        fresh, old = target.with_name(f".{target.name}.new"), place_before(target)
        if self.is_global_zero:
            shutil.rmtree(fresh, ignore_errors=True)
        self.barrier()
        super().save_checkpoint(checkpoint, fresh, storage_options)
        self.barrier()
        if self.is_global_zero:
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            fresh.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of this training."""
        with tensors_only():
            state: dict[str, Any] = super().load_checkpoint(checkpoint_path)
        return state


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[bool]:
    """Gather a module's weights within the block if DeepSpeed shards them; yield whether it does.

    Within a forward pass DeepSpeed does so itself.
    """
    parts = [parameter for parameter in module.parameters() if hasattr(parameter, "ds_id")]
    if not parts:
        yield False
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(parts):
        yield True
