"""What pretraining and finetuning have in common: which weights learn, how, and what is kept of them."""

from typing import Any

from torch import nn

from Recformer.lora import add_lora, drop_frozen
from Recformer.model import RecformerModel
from Recformer.optimization import configure_adamw
from Recformer.options import LearningOptions
from seqrec.module import NextItemModule


class EncoderModule(NextItemModule):
    """A text encoder, or a model around one, that learns whole, without its word embeddings, or by low-rank updates."""

    model: Any

    def __init__(
        self,
        model: nn.Module,
        encoder: RecformerModel,
        learning: LearningOptions,
        num_users: int,
        metric_ks: tuple[int, ...],
    ) -> None:
        """Take a model and the encoder in it."""
        super().__init__(num_users, metric_ks)
        self.learning = learning
        if learning.lora_r:
            add_lora(model, encoder, learning)
        if learning.fix_word_embedding:
            encoder.embeddings.word_embeddings.weight.requires_grad_(False)
        self.model = model.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the updates alone, where there are any: what they are updates of is in the backbone."""
        if self.learning.lora_r and "state_dict" in checkpoint:
            checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a state; what a checkpoint of updates left out stays as it is."""
        if self.learning.lora_r:
            state_dict = self.state_dict() | dict(state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        learning = self.learning
        return configure_adamw(self, learning.lr, learning.weight_decay, learning.warmup_steps)
