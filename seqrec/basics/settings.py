"""The flags of a run as its config.json keeps them: one flat object that a later version of the project still reads."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT

VERSION = "config_version"
"""Key of config.json: version of its format, an integer; the oldest files have none."""
FORM = 1
DATA = "data"
"""Key of config.json: the hashes of the data that the run read."""
VECTORS = "vectors_sha256"
"""Key of config.json and metrics.json: the hash of the item vectors that the run started from."""
NO_FLAGS = {VERSION, DATA, VECTORS}
CHANGED_DEFAULTS: dict[str, Any] = {}
"""Values of flags for runs whose config.json lacks them, where today's default differs. A new flag gets an entry if its
default changes what earlier runs did.
"""


def flatten(config: Any) -> dict[str, Any]:
    """Return a nested dataclass as one flat dictionary of its flags, paths in the project relative to it.

    Raises:
        UserError: If two flags have one name.
    """
    out: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        found = flatten(value) if is_dataclass(value) else {field.name: relative_to_root(value)}
        for name in found:
            if name in owners:
                raise UserError(f"--{name} is a flag of {owners[name]} and of {field.name}: rename one of the two")
            owners[name] = field.name
        out |= found
    return out


def complete(settings: Mapping[str, Any], config_class: Any, file: Path) -> dict[str, Any]:
    """Return the flags of a config.json; missing ones get the value that they had at the time.

    Args:
        settings: What the file holds.
        config_class: The dataclass of the command's flags.
        file: For the message.

    Raises:
        UserError: If a later version wrote the file.
    """
    version = settings.get(VERSION, 0)
    if not isinstance(version, int) or version > FORM:
        raise UserError(f"{file} has {VERSION} {version!r}, and this version reads up to {FORM}: update the project")
    return _defaults(config_class) | CHANGED_DEFAULTS | {k: v for k, v in settings.items() if k not in NO_FLAGS}


def as_flags(settings: Mapping[str, Any], config_class: Any = None) -> list[str]:
    """Return flat flags as a command line.

    Args:
        settings: The flags.
        config_class: The dataclass that is to read them; then a flag of no value is written if its default has one.
    """
    defaults = {} if config_class is None else _defaults(config_class)
    flags = []
    for name, value in settings.items():
        if value is None:
            flags += [f"--{name}", "None"] if defaults.get(name) is not None else []
        elif isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no_{name}")
        else:
            flags += [f"--{name}", *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]
    return flags


def relative_to_root(value: Any) -> Any:
    """Return a path inside the project relative to it, so that it survives a move of the project."""
    path = str(value.absolute()) if isinstance(value, Path) else value
    return path.removeprefix(f"{ROOT}/") if isinstance(path, str) else path


def absolute_from_root(config: Any) -> Any:
    """Return a (nested) dataclass of flags with its relative paths made absolute, from the project's folder."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    nested = {name: absolute_from_root(value) for name, value in values.items() if is_dataclass(value)}
    paths = {name: ROOT / value for name, value in values.items() if isinstance(value, Path)}
    return replace(config, **nested, **paths)


def _defaults(config_class: Any) -> dict[str, Any]:
    """Return the flat default of every flag that has one."""
    out: dict[str, Any] = {}
    for field in fields(config_class):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            out |= flatten(value)
        elif value is not MISSING:
            out[field.name] = relative_to_root(value)
    return out
