"""How a comparison's numbers, names and colours are written, the same in text, chart and page."""

from collections.abc import Sequence

from seqrec.comparison import Table

COLOURS = {"none": "#8a8f98", "longformer": "#0072b2", "pretrain": "#e69f00", "finetune": "#009e73"}
OTHER_COLOURS = ("#cc79a7", "#56b4e9", "#d55e00")
"""Source: Okabe & Ito's palette, told apart by people with any common form of colour blindness."""
DASH, MINUS = "\u2013", "\u2212"


def describe_protocol(table: Table) -> str:
    """Return in one sentence what was ranked against what, for whom."""
    protocol = table.protocol
    split = {
        "leave_one_out": "the last item of every user with at least three",
        "global_time": "each item of every user's after one moment in time, in turn,"
        if protocol.get("time_target") == "successive"
        else f"the {protocol.get('time_target', 'last')} item of every user after one moment in time",
    }.get(protocol["split"], f"the test item of split {protocol['split']}")
    catalogue = f"all {protocol['num_items']:,} items"
    sampled = f"{protocol['sample_size']:,} sampled items"
    seen = "without those the user has already seen" if protocol["filter_seen"] else "already-seen ones included"
    against = sampled if protocol["sample_size"] > 0 else f"{catalogue}, {seen}"
    return f"{table.users:,} users; {split} is ranked against {against}."


def data_mark(table: Table) -> str:
    """Return the first digits of the hashes that fix the data."""
    protocol = table.protocol
    return f"items {protocol['item_ids_sha256'][:8]}, sequences {protocol['sequences_sha256'][:8]}"


def number(value: float | None, sign: bool = False) -> str:
    """Return ".0634", with a sign "+.0081"; a dash for nothing."""
    if value is None:
        return DASH
    text = f"{value:{'+' if sign else ''}.4f}".replace("-", MINUS)
    return text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def percent(value: float | None) -> str:
    """Return "+15 %"; nothing for nothing."""
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


def colour_of(group: str, table: Table) -> str:
    """Return a group's colour, the same in every family."""
    if group in COLOURS:
        return COLOURS[group]
    others = sorted({row.group for row in table.groups} - set(COLOURS))
    return OTHER_COLOURS[others.index(group) % len(OTHER_COLOURS)]
