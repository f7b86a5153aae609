"""How likely a language model finds titles after a prompt. Shapes: K titles."""

from typing import Any

import torch
from torch import Tensor

from seqrec.text.backbones import find_backbone, read_tokenizer


def open_decoder(name: str) -> tuple[Any, Any]:
    """Return a decoder of `transformers` and its tokenizer."""
    from transformers import AutoModelForCausalLM

    folder = find_backbone(name)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), read_tokenizer(folder)


class Likelihood:
    """A decoder that scores titles."""

    def __init__(self, name: str) -> None:
        """Load it by its name, folder or file."""
        self.model, self.tokenizer = open_decoder(name)

    def tokens(self, text: str, most: int | None = None) -> list[int]:
        """Return a text's tokens, without special ones."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"][:most])

    @torch.inference_mode()
    def score(self, prompt: list[int], titles: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of titles after a prompt, summed over their tokens, (K,), and these, (K,).

        The prompt is read once; a title's tokens are read side by side with those of the others.
        """
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        prompt = [*start, *prompt]
        lengths = torch.tensor([len(title) for title in titles])
        read = torch.zeros(len(titles), int(lengths.max()), dtype=torch.int64)
        targets = torch.zeros_like(read)
        for row, title in enumerate(titles):
            read[row, : len(title)] = torch.tensor([prompt[-1], *title[:-1]])
            targets[row, : len(title)] = torch.tensor(title)
        there = torch.arange(read.shape[1]) < lengths[:, None]
        past, before = None, torch.ones(len(titles), len(prompt) - 1, dtype=torch.int64)
        if len(prompt) > 1:
            past = self.model(torch.tensor([prompt[:-1]]), use_cache=True).past_key_values
            past.batch_repeat_interleave(len(titles))
        mask = torch.cat([before, there.long()], dim=1)
        places = torch.arange(len(prompt) - 1, len(prompt) - 1 + read.shape[1]).expand(len(titles), -1)
        logits = self.model(read, attention_mask=mask, position_ids=places, past_key_values=past).logits
        own = logits.float().log_softmax(dim=2).gather(2, targets[:, :, None])[:, :, 0]
        return (own * there).sum(dim=1), lengths
