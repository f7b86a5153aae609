"""The search space of a sweep."""

import math
import re
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from seqrec.basics.errors import UserError


def read_search(entries: tuple[str, ...]) -> dict[str, BaseDistribution]:
    """Return the search space of each flag.

    Raises:
        UserError: If an entry is no `flag=low..high`, `flag=low..high:log` or `flag=a,b,c`.
    """
    space: dict[str, BaseDistribution] = {}
    for entry in entries:
        flag, _, values = entry.partition("=")
        low, is_range, high = values.removesuffix(":log").partition("..")
        try:
            if not flag or not values:
                raise UserError("nothing to search")
            if not is_range:
                space[flag] = CategoricalDistribution(values.split(","))
            elif re.fullmatch(r"\d+", low) and re.fullmatch(r"\d+", high):
                space[flag] = IntDistribution(int(low), int(high), log=values.endswith(":log"))
            else:
                ends = float(low), float(high)
                if not all(map(math.isfinite, ends)):
                    raise ValueError("both ends must be finite numbers")
                space[flag] = FloatDistribution(*ends, log=values.endswith(":log"))
        except ValueError as error:
            raise UserError(
                f"--search {entry!r} ({error}): expected flag=low..high, flag=low..high:log or flag=a,b,c"
            ) from error
    return space


def read_start(entries: tuple[str, ...], space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """Return the values of a first trial, of each searched flag one; nothing if none are given.

    Raises:
        UserError: If an entry is no `flag=value` of the space, or a flag is missing.
    """
    given = dict(entry.partition("=")[::2] for entry in entries)
    if given and given.keys() != space.keys():
        raise UserError(f"--start has {', '.join(given)}: expected one value of each of {', '.join(space)}")
    return {flag: read_value(flag, value, space[flag]) for flag, value in given.items()}


def read_value(flag: str, text: str, distribution: BaseDistribution) -> Any:
    """Return a value of a flag's space.

    Raises:
        UserError: If it is not in it.
    """
    if isinstance(distribution, CategoricalDistribution):
        if text in distribution.choices:
            return text
        raise UserError(f"--start {flag}={text}: expected one of {', '.join(map(str, distribution.choices))}")
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    try:
        value = (int if isinstance(distribution, IntDistribution) else float)(text)
        if distribution.low <= value <= distribution.high:
            return value
    except ValueError:
        pass
    raise UserError(f"--start {flag}={text}: expected a number from {distribution.low} to {distribution.high}")


def draw(distribution: BaseDistribution, generator: np.random.Generator) -> Any:
    """Return a value at random."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(generator.integers(len(distribution.choices)))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    whole = isinstance(distribution, IntDistribution)
    high += whole  # each whole number is as likely
    value = np.exp(generator.uniform(np.log(low), np.log(high))) if distribution.log else generator.uniform(low, high)
    return int(value) if whole else float(value)


def suggest(trial: Trial, flag: str, distribution: BaseDistribution) -> Any:
    """Return the value of a trial."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(flag, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(flag, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(flag, distribution.choices)
