"""The flags of the published scripts: translated to ours, or refused with what to use; and their values as one set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from seqrec.basics.errors import UserError

RECIPE = "--recipe"
Conversion = Callable[[list[str]], list[str]]
"""Maps the words after a flag to the words that stand for both here."""


def words(name: str | None, values: Mapping[str, str]) -> Conversion:
    """Return a conversion of one word: `values` says what it is here, others stay as they are.

    Without a name the values are flags of their own, and other words are refused.
    """

    def convert(given: list[str]) -> list[str]:
        if name is not None:
            return [name, *(values.get(word, word) for word in given)]
        if len(given) != 1 or given[0] not in values:
            raise UserError(f"expected one of {', '.join(values)}, got {' '.join(given) or 'nothing'}")
        return [values[given[0]]]

    return convert


def numbers(name: str, given: list[str]) -> list[str]:
    """Return the words of a list that may be quoted, as in `"0 1 2"`, with blanks or commas.

    Raises:
        UserError: If they are no numbers.
    """
    listed = [word for group in given for word in group.replace(",", " ").split()]
    if not listed or not all(word.isdecimal() for word in listed):
        raise UserError(f'{name} must be numbers, such as "0 1 2", got {" ".join(given) or "nothing"}')
    return listed


def drop() -> Conversion:
    """Return a conversion for a flag that has nothing to do here, and takes its value with it."""
    return lambda _: []


@dataclass(frozen=True, slots=True)
class PublishedFlags:
    """What a published script's flags are here."""

    taken: Mapping[str, str] = field(default_factory=dict)
    """By name: the flags that stand for it, such as `--precision 16-mixed`; or `--a | --no_a` for True and False after
    it."""
    converted: Mapping[str, Conversion] = field(default_factory=dict)
    """By name: what becomes of a flag whose values are others here."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By name: what to use."""
    recipe: str = ""
    """Flags that `--recipe published` stands for; flags given beside it take precedence."""

    def translate(self, words: Sequence[str]) -> list[str]:
        """Return a command line in the flags of this project.

        Raises:
            UserError: If flags have no counterpart, all of them named, or the recipe is unknown.
        """
        translated: list[str] = []
        recipe: list[str] = []
        refused: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            name = "--" + name.removeprefix("--").replace("-", "_")
            if name == RECIPE and self.recipe and word.startswith("--"):
                given = value if equals else next(iter(rest), "")
                rest = rest if equals else rest[1:]
                if given != "published":
                    raise UserError(f"--recipe must be published, got {given!r}")
                recipe = self.recipe.split()
            elif word.startswith("--") and name in self.refused:
                refused.append(name)
            elif word.startswith("--") and name in self.converted:
                given_words = [value] if equals else []
                while not equals and rest and not rest[0].startswith("--"):
                    given_words.append(rest.pop(0))
                try:
                    translated += self.converted[name](given_words)
                except UserError as error:
                    raise UserError(f"{name}: {error}".replace(f"{name}: {name} ", f"{name} ")) from error
            elif word.startswith("--") and (meant := self.taken.get(name)) is not None:
                yes, either, no = meant.partition(" | ")
                if either:
                    given = value if equals else next(iter(rest), "")
                    is_stated = given.lower() in ("true", "false")
                    if equals and not is_stated:
                        raise UserError(f"{name} must be True or False, got {given!r}")
                    rest = rest[1:] if is_stated and not equals else rest
                    translated.append(no if given.lower() == "false" else yes)
                else:
                    translated += [*yes.split(), *([value] if equals else [])]
            else:
                translated.append(word)
        if refused:
            raise UserError("\n".join(f"{name} is the published script's: {self.refused[name]}" for name in refused))
        return recipe + translated
