"""How numbers are written, the same in text, chart and page."""

from collections.abc import Sequence

from tabulate import tabulate

DASH, MINUS = "\u2013", "\u2212"


def number(value: float | None, sign: bool = False) -> str:
    """Return ".0634", with a sign "+.0081"; a dash for None."""
    if value is None:
        return DASH
    text = f"{value:{'+' if sign else ''}.4f}".replace("-", MINUS)
    return text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def percent(value: float | None) -> str:
    """Return "+15 %"; an empty string for None."""
    return "" if value is None else f"{100 * value:+.1f} %".replace("-", MINUS)


def probability(p: float | None) -> str:
    """Return ".012" or "<.001"; "one seed" for None."""
    if p is None:
        return "one seed"
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def duration(seconds: float | None) -> str:
    """Return seconds as "12 s", "3.4 min" or "1.2 h"."""
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float | None) -> str:
    """Return bytes as "1.5 GiB"."""
    return DASH if count is None else _scale(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def amount(count: float | None) -> str:
    """Return a count as "1.2 M"."""
    return DASH if count is None else _scale(count, 1000, ("", "k", "M", "G"))


def _scale(value: float, step: int, units: Sequence[str]) -> str:
    unit = 0
    while value >= step and unit < len(units) - 1:
        value, unit = value / step, unit + 1
    return f"{value:.0f} {units[unit]}".strip() if unit == 0 else f"{value:.1f} {units[unit]}"


COLUMNS = 110
_NAME_WIDTH = 14


def align(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Return a table as text: the first columns are names, the rest are right-aligned."""
    sides = [*["left"] * names, *["right"] * (len(header) - names)]
    text = tabulate(rows, header, "plain", colalign=sides, disable_numparse=True, preserve_whitespace=True)
    return "\n".join(line.rstrip() for line in text.splitlines())


def align_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a titled table; the first two columns are names, the rest numbers set to the right.

    A family's name stands in its first row only.
    """
    shown, last = [], ""
    for family, name, *rest in rows:
        shown.append(["" if family == last else _shorten(family), _shorten(name, 2 * _NAME_WIDTH), *rest])
        last = family
    text = align(header, shown, names=2)
    return "\n".join([title, "─" * min(COLUMNS, max(map(len, text.splitlines()))), text])


def _shorten(name: str, width: int = _NAME_WIDTH) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
