"""A language model that is shown all candidates, and what its answer says. Shapes: K candidates."""

import re
from typing import NamedTuple, Protocol

import torch

from Baselines.kept import Kept
from Baselines.likelihood import open_decoder


class Said(NamedTuple):
    """An answer, and what it took."""

    text: str
    tokens_in: int
    tokens_out: int
    was_kept: bool = False
    """Whether it was there from an earlier run."""


class Chat(Protocol):
    """What answers a message."""

    def answer(self, message: str, most: int) -> Said:
        """Return the answer of so many tokens at most."""


class LocalChat:
    """A decoder that answers, always with its most probable token."""

    def __init__(self, name: str) -> None:
        """Load it by its name, folder or file."""
        self.model, self.tokenizer = open_decoder(name)

    def answer(self, message: str, most: int) -> Said:
        """Return the answer of so many tokens at most."""
        tokenizer = self.tokenizer
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": message}]
            message = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        read = tokenizer(message, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)["input_ids"]
        with torch.inference_mode():
            found = self.model.generate(
                read,
                attention_mask=torch.ones_like(read),
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )[0, read.shape[1] :]
        return Said(tokenizer.decode(found, skip_special_tokens=True), read.shape[1], len(found))


class KeptChat:
    """A chat whose answers are kept: a message is answered once."""

    def __init__(self, chat: Chat, kept: Kept) -> None:
        self.chat, self.kept = chat, kept

    def answer(self, message: str, most: int) -> Said:
        """Return the answer of so many tokens at most."""
        question = [message, most]
        found = self.kept.find(question)
        if found is not None:
            return Said(**found, was_kept=True)
        said = self.chat.answer(message, most)
        self.kept.keep(question, text=said.text, tokens_in=said.tokens_in, tokens_out=said.tokens_out)
        return said


def read_order(answer: str, count: int) -> tuple[list[int], bool]:
    """Return the places 0..K-1 in the order in which an answer names them, and whether it names all, each once.

    Numbers that are no candidate's are passed over, and so is what is named again; what is not named comes last, in the
    order in which it was shown.
    """
    named = [int(number) - 1 for number in re.findall(r"\d+", answer) if len(number) < 6]
    order = list(dict.fromkeys(place for place in named if 0 <= place < count))
    whole = len(order) == len(named) == count
    return [*order, *(place for place in range(count) if place not in set(order))], whole
