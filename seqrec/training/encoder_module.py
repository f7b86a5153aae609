"""The base of modules that train a text encoder: trainable weights, optimiser, checkpoints."""

import logging
from typing import Any

import torch
from torch import nn

from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.text.encoder import TextEncoder
from seqrec.text.lora import add_lora, drop_frozen
from seqrec.text.options import LearningOptions
from seqrec.training.module import NextItemModule

log = logging.getLogger(__name__)


class EncoderModule(NextItemModule):
    """Trains a text encoder, or a model around one: all weights, all but word embeddings, or low-rank updates."""

    model: Any

    def __init__(
        self,
        model: nn.Module,
        encoder: TextEncoder,
        learning: LearningOptions,
        metric_ks: tuple[int, ...],
    ) -> None:
        """Take a model and the encoder in it."""
        super().__init__(metric_ks)
        self.learning = learning
        if learning.lora_r:
            add_lora(model, encoder, learning)
        if learning.fix_word_embedding:
            encoder.word_embeddings.weight.requires_grad_(False)
        self.model = model.train()

    def on_fit_start(self) -> None:
        """Warn if the precision makes training slower."""
        on_cpu = self.device.type == "cpu" and self.trainer.precision == "bf16-mixed"
        if on_cpu and not torch.cpu._is_amx_tile_supported():
            log.warning(
                "--precision bf16-mixed: without AMX, which this processor lacks, a text encoder trains slower in it "
                "than in 32-true; encoding alone may be faster"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save only the low-rank updates, if there are any: the backbone has the rest."""
        if self.learning.lora_r and "state_dict" in checkpoint:
            checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a state; weights that a checkpoint of updates lacks stay as they are."""
        if self.learning.lora_r:
            state_dict = self.state_dict() | dict(state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def configure_optimizers(self) -> Any:
        """Return AdamW, without decay of biases and norms, with linear warm-up and linear decay of the rate."""
        learning = self.learning
        groups = decay_weights(self, learning.weight_decay)
        optimizer = torch.optim.AdamW(groups, learning.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, learning.warmup_steps)
