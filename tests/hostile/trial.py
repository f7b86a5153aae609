"""Trying generated inputs in a process of its own, which writes down what it is at before it begins."""

import importlib
import json
import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests import forked

SHORT, FULL = 30, 150
"""Inputs of each kind."""
Check = Callable[[Any, Path], None]
"""Tries an input in an empty folder; a UserError is a refusal."""


@dataclass
class Tally:
    """What came of one kind's inputs."""

    inputs: int = 0
    refusals: int = 0
    successes: int = 0
    fault: str = ""
    """The first input that broke something, made small, and what it broke."""


def try_kind(strategy: SearchStrategy[Any], check: Check, examples: int, place: Path, journal: Path) -> Tally:
    """Return what comes of generated inputs."""
    from seqrec.basics.errors import UserError

    tally = Tally()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @given(strategy)
    def attempt(case: Any) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        journal.write_text(repr(case)[:20_000], errors="backslashreplace")
        tally.inputs += 1
        try:
            check(case, place)
        except UserError as error:
            said = str(error)
            assert 10 < len(said) < 2000, f"a message of {len(said)} characters: {said[:200]}"
            assert said.isprintable() or "\n" not in said, f"a message of several lines: {said[:200]!r}"
            tally.refusals += 1
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            raise AssertionError(f"{type(error).__name__}: {error}") from error  # polars' panics are no Exception
        else:
            tally.successes += 1

    try:
        attempt()
    except Exception as error:  # noqa: BLE001 (the parent process reports it)
        errors = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        tally.fault = "\n\n".join(map(_describe, errors))
    return tally


def _describe(error: Exception) -> str:
    notes = "\n".join(getattr(error, "__notes__", []))
    places = "".join(traceback.format_tb(error.__traceback__))
    return f"{places[-2000:]}{type(error).__name__}: {str(error)[:1000]}\n{notes[:2000]}"


def try_all(module: str, names: Sequence[str], examples: int, folder: str) -> None:
    """Try kinds of a module's one after another, leaving a tally of each in a folder; for a process of its own."""
    os.chdir(folder)
    kinds: Mapping[str, tuple[SearchStrategy[Any], Check]] = importlib.import_module(module).KINDS
    for name in names:
        tally = try_kind(*kinds[name], examples, Path(folder, "work"), Path(folder, "at"))
        Path(folder, f"{name}.json").write_text(json.dumps(asdict(tally)))


def run(module: str, names: Sequence[str], examples: int, folder: Path) -> dict[str, Tally]:
    """Return what comes of each kind, also where an input ends the process that tries it."""
    tallies: dict[str, Tally] = {}
    while left := [name for name in names if name not in tallies]:
        process = forked.start(try_all, module, left, examples, str(folder), output=folder / "said")
        process.join()
        for name in left:
            if (file := folder / f"{name}.json").is_file():
                tallies[name] = Tally(**json.loads(file.read_text()))
        if process.exitcode:
            culprit = next(name for name in left if name not in tallies)
            at = (folder / "at").read_text() if (folder / "at").is_file() else "nothing"
            said = (folder / "said").read_text(errors="replace")[-3000:]
            tallies[culprit] = Tally(fault=f"the process ended with {process.exitcode} at {at}\n{said}")
    return tallies


def report(module: str, names: Sequence[str], full: bool, folder: Path) -> None:
    """Try a module's kinds, print the counts, and fail where an input broke something."""
    tallies = run(module, names, FULL if full else SHORT, folder)
    for name in names:
        tally = tallies[name]
        print(f"{name:20} {tally.inputs:6,} inputs, {tally.refusals:6,} refused, {tally.successes:6,} read")
    faults = [f"{name}: {tally.fault}" for name, tally in tallies.items() if tally.fault]
    total = [sum(getattr(tally, part) for tally in tallies.values()) for part in ("inputs", "refusals", "successes")]
    print("{:20} {:6,} inputs, {:6,} refused, {:6,} read, {} broken".format("together", *total, len(faults)))
    assert not faults, "\n\n".join(faults)
