"""Names and colours of a comparison, the same in text, chart and page."""

from seqrec.comparison.tables import ResultTable

COLOURS = {"none": "#8a8f98", "longformer": "#0072b2", "pretrain": "#e69f00", "finetune": "#009e73"}
OTHER_COLOURS = ("#cc79a7", "#56b4e9", "#d55e00")
"""Source: Okabe & Ito's palette, told apart by people with any common form of colour blindness."""


def describe_protocol(table: ResultTable) -> str:
    """Return in one sentence what was ranked against what, for whom."""
    protocol = table.protocol
    if protocol.get("ranked") == "comments":
        most = protocol["sample_size"]
        return (
            f"{table.users:,} users; the comments that each took up last are ranked among those that stood under the "
            f"video before, {most:,} at most."
        )
    k: int = protocol.get("last_k_eval_test", 2)
    begin, end = protocol.get("item_start_position", 0), protocol.get("item_end_position")
    used = f", of items {begin}:{'' if end is None else end}," if (begin, end) != (0, None) else ""
    last = "the last item" if k < 4 else f"item {k // 2} from the end"
    split = {
        "leave_one_out": f"{last} of every user with at least {'three' if k == 2 else k + 1}{used}",
        "users": "the last item of a tenth of the users, of whom nothing was trained on,",
        "global_time": "each item of every user's after one moment in time, in turn,"
        if protocol.get("time_target") == "successive"
        else f"the {protocol.get('time_target', 'last')} item of every user after one moment in time",
    }.get(protocol["split"], f"the test item of split {protocol['split']}")
    catalogue = f"all {protocol['num_items']:,} items"
    drawn = "given" if "candidates_sha256" in protocol else "sampled"
    sampled = f"{protocol['sample_size']:,} {drawn} items"
    seen = "without those the user has already seen" if protocol["filter_seen"] else "already-seen ones included"
    against = sampled if protocol["sample_size"] > 0 else f"{catalogue}, {seen}"
    if days := protocol.get("fresh_days"):
        against = f"what appeared within {days:g} days before and the user had not had by then"
    drawn_users = ", drawn from all" if "drawn_users" in protocol else ""
    few = f" Trained on {some:,} users." if (some := protocol.get("train_users")) else ""
    return f"{table.users:,} users{drawn_users}; {split} is ranked against {against}.{few}"


def data_mark(table: ResultTable) -> str:
    """Return the first digits of the hashes that fix the data."""
    protocol = table.protocol
    return f"items {protocol['item_ids_sha256'][:8]}, sequences {protocol['sequences_sha256'][:8]}"


def colour_of(group: str, table: ResultTable) -> str:
    """Return a group's colour, the same in every family."""
    if group in COLOURS:
        return COLOURS[group]
    others = sorted({row.group for row in table.groups} - set(COLOURS))
    return OTHER_COLOURS[others.index(group) % len(OTHER_COLOURS)]
