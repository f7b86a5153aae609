"""What a language model reads of a user: a prompt in a language, as tokens. Shapes: L tokens of a prompt.

Templates are JSON, `prompts/en.json` and `prompts/zh.json` or a file of yours. Texts in them are tokenised once, not as
a whole: titles, comments and what stands between them are put together as tokens. A prompt that is too long loses the
oldest lines of its histories, and never an instruction.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from LSVCR.options import Task
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object

Tokens = NDArray[np.int64]
FOLDER = Path(__file__).parent / "prompts"
TASKS: tuple[Task, ...] = ("Rec", "CommRank")
LINES = {"video": {"number", "title", "comment"}, "entry": {"number", "title", "comments"}}
FIELDS: dict[Task, set[str]] = {"Rec": {"videos", "entries"}, "CommRank": {"videos", "entries", "title"}}
HISTORIES = ("videos", "entries")


def read_templates(name: str) -> dict[str, Any]:
    """Return the templates of a language, `en` or `zh`, or of a file.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If a template is missing, or lacks a field or has an unknown one.
    """
    file = FOLDER / f"{name}.json" if name in languages() else Path(name)
    if not file.is_file():
        raise MissingFileError(f"--prompts {name} is no file and none of {', '.join(languages())}")
    repair = f"see {FOLDER / 'en.json'}"
    found = read_json_object(file, repair, {**dict.fromkeys(LINES, str), "nothing": str, "between comments": str})
    for key, wanted in LINES.items():
        _check(file, key, found[key], wanted)
    for task in TASKS:
        variants = found.get(task)
        if not isinstance(variants, list) or not variants or not all(isinstance(text, str) for text in variants):
            raise UserError(f"{file}: {task!r} must be a list of templates, at least one: {repair}")
        for text in variants:
            _check(file, task, text, FIELDS[task])
    return found


def languages() -> list[str]:
    """Return the languages that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _check(file: Path, key: str, template: str, wanted: set[str]) -> None:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"{file}: {key!r} is no template ({error}): write {{{{ and }}}} for braces") from error
    if sorted(fields) != sorted(wanted):
        raise UserError(f"{file}: {key!r} has the fields {sorted(fields)}, expected {sorted(wanted)}, each once")


class PromptWriter:
    """Puts prompts and answers together for one tokenizer."""

    def __init__(self, templates: Mapping[str, Any], tokenizer: Any, longest: int, longest_answer: int) -> None:
        """Tokenise what is the same in all prompts.

        Args:
            templates: See `read_templates`.
            tokenizer: A Hugging Face tokenizer.
            longest: Most tokens of a prompt.
            longest_answer: Most tokens of an answer, without the token that ends it.

        Raises:
            UserError: If the tokenizer has no token that ends a text.
        """
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no token that ends a text, which an answer needs: give another model")
        self.longest, self.longest_answer = longest, longest_answer
        known = tokenizer("a", return_special_tokens_mask=True)
        leading = known["special_tokens_mask"].index(0)
        self.start = np.array(known["input_ids"][:leading], dtype=np.int64)
        self.end = np.array([tokenizer.eos_token_id], dtype=np.int64)

        def tokens(text: str) -> Tokens:
            return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

        def pieces(template: str) -> list[Tokens | str]:
            found: list[Tokens | str] = []
            for text, name, _, _ in Formatter().parse(template):
                found += [tokens(text)] * bool(text) + ([name] if name is not None else [])
            return found

        self._lines = {key: pieces(templates[key]) for key in LINES}
        self._prompts = {task: [pieces(text) for text in templates[task]] for task in TASKS}
        self._between, self._nothing = tokens(templates["between comments"]), tokens(templates["nothing"])
        self._number = lru_cache(maxsize=None)(lambda number: tokens(str(number)))

    def variants(self, task: Task) -> int:
        """Return the number of prompts for a task."""
        return len(self._prompts[task])

    def room(self, task: Task) -> int:
        """Return the tokens that are left for histories, and for a title if there is one, in the longest prompt."""
        taken = [sum(len(p) for p in prompt if not isinstance(p, str)) for prompt in self._prompts[task]]
        return self.longest - len(self.start) - 2 * len(self._nothing) - max(taken)

    def video(self, number: int, title: Tokens, comment: Tokens) -> Tokens:
        """Return the line of a video that was watched."""
        return _fill(self._lines["video"], {"number": self._number(number), "title": title, "comment": comment})

    def entry(self, number: int, title: Tokens, comments: Sequence[Tokens]) -> Tokens:
        """Return the line of comments that were taken up."""
        joined = [piece for comment in comments for piece in (self._between, comment)][1:]
        fields = {"number": self._number(number), "title": title, "comments": np.concatenate([self.start[:0], *joined])}
        return _fill(self._lines["entry"], fields)

    def prompt(
        self, task: Task, variant: int, videos: Sequence[Tokens], entries: Sequence[Tokens], title: Tokens
    ) -> Tokens:
        """Return a prompt, (L,) with L at most `longest`.

        Args:
            task: What is asked for.
            variant: Which of its prompts.
            videos: Lines of the videos watched, oldest first.
            entries: Lines of the comments taken up, oldest first.
            title: Of the video that is being watched, for CommRank.
        """
        pieces = self._prompts[task][variant]
        room = self.longest - len(self.start) - sum(len(p) for p in pieces if not isinstance(p, str))
        room -= len(title) if task == "CommRank" else 0
        kept = dict(zip(HISTORIES, self.shorten(videos, entries, room), strict=True))
        fields = {name: np.concatenate(lines) if lines else self._nothing for name, lines in kept.items()}
        return np.concatenate([self.start, _fill(pieces, {**fields, "title": title})])

    def shorten(
        self, videos: Sequence[Tokens], entries: Sequence[Tokens], room: int
    ) -> tuple[Sequence[Tokens], Sequence[Tokens]]:
        """Return the latest lines that fit, where each history has a half, and what the other one leaves of its own."""
        least = len(self._nothing)
        totals = [max(sum(map(len, lines)), least) for lines in (videos, entries)]
        if sum(totals) <= room:
            return videos, entries
        half = room // 2
        limits = [max(half, room - other) for other in reversed(totals)]
        found = [_latest(lines, limit) for lines, limit in zip((videos, entries), limits, strict=True)]
        return found[0], found[1]

    def answer(self, text: Tokens) -> Tokens:
        """Return an answer with the token that ends it."""
        return np.concatenate([text[: self.longest_answer], self.end])


def _latest(lines: Sequence[Tokens], limit: int) -> Sequence[Tokens]:
    ends = np.cumsum([len(line) for line in reversed(lines)])
    kept = int(np.searchsorted(ends, limit, side="right"))
    return lines[len(lines) - kept :]


def _fill(pieces: Sequence[Tokens | str], fields: Mapping[str, Tokens]) -> Tokens:
    return np.concatenate([fields[piece] if isinstance(piece, str) else piece for piece in pieces])
