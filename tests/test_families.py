"""What every family offers, and what a run's config.json says to later versions."""

import importlib
import inspect
import json
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from seqrec.basics import settings
from seqrec.basics.errors import UserError
from seqrec.basics.names import list_families
from seqrec.basics.paths import ROOT
from seqrec.basics.settings import FORM, VERSION, as_flags, complete, flatten
from seqrec.training.restore import Family

FAMILIES = list_families(ROOT)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_keeps_the_contract(name: str) -> None:
    family = importlib.import_module(f"{name}.finetune")
    assert is_dataclass(family.Config)
    assert vars(family.Config)["__dataclass_params__"].frozen
    assert {"dataset", "data_path", "protocol"} <= {f.name for f in fields(family.Config)}
    for function in ("main", "restore"):
        wanted, found = (inspect.signature(getattr(owner, function)) for owner in (Family, family))
        assert list(found.parameters) == list(wanted.parameters)
        assert [p.default for p in found.parameters.values()] == [p.default for p in wanted.parameters.values()]
    script = (ROOT / name / "finetune.sh").read_text().splitlines()
    assert len(script) <= 12
    assert script[-1] == f'exec "$PYTHON" "$ROOT/{name}/finetune.py" "$@"'


@pytest.mark.parametrize("name", FAMILIES)
def test_its_flags_are_flat_and_read_back(name: str) -> None:
    import tyro

    family: Any = importlib.import_module(f"{name}.finetune")
    config = family.Config()
    words = as_flags(flatten(config))
    read = tyro.cli(family.Config, args=words, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    assert flatten(read) == flatten(config)


@dataclass(frozen=True)
class Sizes:
    width: int = 64
    dropout: float = 0.1


@dataclass(frozen=True)
class Flags:
    lr: float = 0.1
    sizes: Sizes = field(default_factory=Sizes)
    folder: Path = ROOT / "embedding"


def test_two_flags_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Twice:
        left: Sizes = field(default_factory=Sizes)
        right: Sizes = field(default_factory=Sizes)

    with pytest.raises(UserError, match="--width is a flag of left and of right"):
        flatten(Twice())


def test_a_flag_that_an_old_run_lacks_has_the_value_that_it_had_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flatten(Flags()) == {"lr": 0.1, "width": 64, "dropout": 0.1, "folder": "embedding"}
    old = {"lr": 0.3, "data": [], "vectors_sha256": None}
    assert complete(old, Flags, Path("x")) == {"lr": 0.3, "width": 64, "dropout": 0.1, "folder": "embedding"}
    monkeypatch.setattr(settings, "CHANGED_DEFAULTS", {"dropout": 0.5, "lr": 0.9})
    assert complete(old, Flags, Path("x")) == {"lr": 0.3, "width": 64, "dropout": 0.5, "folder": "embedding"}


def test_a_later_form_is_refused() -> None:
    with pytest.raises(UserError, match=rf"x has config_version {FORM + 1}, and this version reads up to {FORM}"):
        complete(json.loads(f'{{"{VERSION}": {FORM + 1}}}'), Flags, Path("x"))
