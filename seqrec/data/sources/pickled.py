"""The `dataset.pkl` of the SASRec and BERT4Rec seeds: a pickle of train, val, test, smap and perhaps umap.

A pickle can run any code when it is loaded. This reader admits dict, list, int and str and nothing else.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seqrec.basics.errors import UserError
from seqrec.data.preparation import Preparation, RawData
from seqrec.data.sources.json_text import read_json
from seqrec.data.sources.reading import existing
from seqrec.data.sources.recformer import item_attributes, join_splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled(Preparation):
    """A pickle of train, val, test and smap."""

    kind: ClassVar[str] = "pickle"

    input: Path
    """The dataset.pkl."""
    items: Path | None = None
    """meta_data.json with the text of smap's keys; without it the dataset has no text."""
    resplit: bool = False
    """Join train, val and test of a user and hold out the last two items again."""

    def read(self, scratch: Path) -> RawData:
        """Return the sequences and the items' text."""
        content = load_plain_pickle(existing(self.input, "--input"))
        parts = ("train", "val", "test", "smap")
        missing = [part for part in parts if not isinstance(content, dict) or not isinstance(content.get(part), dict)]
        if missing:
            held = list(content) if isinstance(content, dict) else type(content).__name__
            raise UserError(f"{self.input}: expected a dict with the dicts {', '.join(parts)}; it holds {held}")
        smap = content["smap"]
        text = None
        if self.items is not None:
            text = item_attributes(read_json(self.items, "--items"), smap, str(self.items), self.attribute_names)
        splits = {part: content[part] for part in parts[:3]}
        return join_splits(splits, smap, content.get("umap", {}), text, self.resplit, self.input)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it holds a persistent id")


def load_plain_pickle(path: Path) -> Any:
    """Return what a pickle of dict, list, int and str holds; no code of the pickle runs.

    Raises:
        UserError: If it holds anything else, named in the message, or is damaged.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except Exception as error:  # damaged pickles raise nearly any error, as the documentation says
        raise UserError(
            f"{path} can't be read as a pickle of dict, list, int and str: {error or type(error).__name__}. "
            "Write it again with plain types, or as the JSON files of the source `recformer`"
        ) from error
    odd = _odd_type(content)
    if odd is not None:
        raise UserError(f"{path} can't be read as a pickle of dict, list, int and str: it holds {odd}")
    return content


def _odd_type(content: Any) -> str | None:
    """Return the name of a type that is not admitted, level by level so that the types are gathered in C."""
    level, seen = [content], set[int]()
    while level:
        kinds = set(map(type, level))
        if kinds - {dict, list, int, str}:
            return (kinds - {dict, list, int, str}).pop().__name__
        inner = [value for value in level if type(value) in (dict, list) and id(value) not in seen]
        seen.update(map(id, inner))
        level = [part for value in inner for part in (value if type(value) is list else [*value, *value.values()])]
    return None
