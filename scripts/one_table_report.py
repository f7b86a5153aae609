"""The tables, the pictures and the page that scripts/one_table.py makes of its runs."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from scripts.one_table_plan import REFERENCE, Plan, Row, read
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import DASH, align, amount, duration, number, size
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.comparison.frontier import LEAST_DRAWN, Gain, Point, draw_frontier, draw_profiles
from seqrec.comparison.page import render_page
from seqrec.comparison.report import write_report
from seqrec.comparison.results import Seen
from seqrec.comparison.tables import Comparison, Difference, GroupResult, ResultTable, compare_runs

METRIC = "NDCG@10"
PROTOCOLS: dict[Seen, str] = {"kept": "what a user has among the candidates", "left_out": "without what a user has"}
LEAST = {"all seconds": 1.0, "milliseconds": 0.1}
"""What is drawn of a cost that is less: the axis is logarithmic."""
NOBODY: dict[str, None] = dict.fromkeys((METRIC, "mean", "low", "high"))
"""Of a slice without users."""
REQUESTS = 30
"""Requests of one user each that are timed."""
PAGE = Path(__file__).with_name("one_table.html")
Record = dict[str, Any]


def report(plan: Plan, folder: Path, data_dir: Path, few: Sequence[int], notes: list[str]) -> str:
    """Write the comparison's pages, the table and the pictures; return the table and where all lies.

    Args:
        plan: What was run.
        folder: Of the runs, and of what is written.
        data_dir: Of the datasets.
        few: Numbers of users that some rows are trained on, too.
        notes: What stands below the table.
    """
    both: dict[str, Comparison] = {}
    for seen in PROTOCOLS:
        both[seen] = compare_runs(folder / "runs", data_dir, plan.dataset, METRIC, reference=REFERENCE, seen=seen)
        write_report(both[seen], folder / seen)
    fewer = compare_few(plan, folder, data_dir, few)
    costs = read_costs(plan, folder)
    records = [
        describe(row, costs[row.name], both, fewer) for row in plan.rows if find_row(both["kept"], row) is not None
    ]
    users = {str(users): f"{100 * users / whole(both['kept']).users:.0f} %" for users in few}
    result = {"dataset": plan.dataset, "metric": METRIC, "notes": notes, "users": users, "rows": records}
    write_json(folder / "one-table.json", result)
    header, cells = shown(records)
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *cells])
    files = {"one-table.csv": pl.DataFrame(list(map(flat, records))).write_csv().encode()}
    files["one-table.md"] = "\n\n".join([markdown, *notes, ""]).encode()
    files |= draw(plan.dataset, records, users)
    for name, content in files.items():
        with write_atomically(folder / name) as file:
            file.write(content)
    made = ", ".join(("one-table.json", *files, "kept/", "left_out/"))
    return f"{align(header, cells, names=2)}\n" + "\n".join([*notes, f"{folder}: {made}"])


def write_page(folder: Path) -> Path:
    """Write one page of the tables of all datasets in a folder, to be filtered by its reader; return its path."""
    results = [read_json_object(file, "make the table again") for file in sorted(folder.glob("*/one-table.json"))]
    with write_atomically(page := folder / "one-table.html") as file:
        file.write(render_page(PAGE, results=results, protocols=PROTOCOLS, least=LEAST_DRAWN).encode())
    return page


def compare_few(plan: Plan, folder: Path, data_dir: Path, few: Sequence[int]) -> dict[str, dict[str, Comparison]]:
    """Return the comparisons of what was trained on few users, by their number and by protocol."""
    found: dict[str, dict[str, Comparison]] = {}
    for users in few:
        if any((folder / "few" / str(users)).glob(f"*/{plan.dataset}/*/metrics.json")):
            runs = folder / "few" / str(users)
            found[str(users)] = {
                seen: compare_runs(runs, data_dir, plan.dataset, METRIC, reference=REFERENCE, seen=seen)
                for seen in PROTOCOLS
            }
    return found


def find_row(comparison: Comparison, row: Row) -> tuple[ResultTable, GroupResult] | None:
    """Return a row's group and the table that it stands in, of all users where it was tested on them."""
    for table in sorted(comparison.tables, key=lambda table: -table.users):
        for group in table.groups:
            if group.key == (row.family, row.name):
                return table, group
    return None


def describe(row: Row, costs: Record, both: dict[str, Comparison], fewer: dict[str, dict[str, Comparison]]) -> Record:
    """Return what is known of a row, numbers in full."""
    record: Record = {
        "row": row.name,
        "family": row.family,
        "why": row.why,
        "new item": row.new,
        "few": row.few,
    } | costs
    for seen, comparison in both.items():
        found = find_row(comparison, row)
        assert found is not None
        record[seen] = scores(*found)
        labels = [label for slicing in whole(comparison).slicings[:1] for label in slicing.labels]
        record[seen]["seen"] = {label: record[seen]["seen"].get(label, NOBODY) for label in labels}
        record[seen]["users"] = {
            users: scores(*few) for users, each in fewer.items() if (few := find_row(each[seen], row)) is not None
        }
        record["seeds"] = len(found[1].seeds)
        record["sample"] = found[0].users if found[0].users < whole(comparison).users else None
        cost = found[1].cost
    trained = cost.get("train_seconds") or 0.0
    record |= {"training seconds": trained, "all seconds": trained + costs["language model's seconds"]}
    record |= {"vector bytes": cost.get("item_vector_bytes"), "peak bytes": cost.get("peak_memory_bytes")}
    return record | {"trained": cost.get("trainable_parameters") if trained else 0}


def whole(comparison: Comparison) -> ResultTable:
    """Return the table of all users: of others a sample was tested."""
    return max(comparison.tables, key=lambda table: table.users)


def scores(table: ResultTable, group: GroupResult) -> Record:
    """Return a group's means, its difference to the reference, and both by how often a target was seen."""
    found: Record = {METRIC: group.mean[METRIC], "sd": group.sd[METRIC], "Recall@10": group.mean["Recall@10"]}
    found["difference"] = as_difference(table.difference(*group.key))
    found["seen"] = {}
    for slicing in table.slicings[:1]:
        for family, name, cells in slicing.rows:
            if (family, name) == group.key:
                found["seen"] = {
                    label: {METRIC: cell.mean, "mean": cell.difference, "low": cell.low, "high": cell.high}
                    for label, cell in zip(slicing.labels, cells, strict=True)
                }
    return found


def as_difference(difference: Difference | None) -> Record | None:
    """Return a difference's numbers, None where there is none."""
    if difference is None:
        return None
    names = ("mean", "low", "high", "p_holm")
    return {name: getattr(difference, name) for name in names} | {"clear": difference.is_clear}


def read_costs(plan: Plan, folder: Path) -> dict[str, Record]:
    """Return each row's seconds of what it rests on, milliseconds of an answer, and command of its first run."""
    seconds = read_json_object(folder / "seconds.json", "make the rows again")
    flags = read_json_object(folder / "flags.json", "make the rows again")
    answers = time_requests(plan, folder)
    costs = {}
    for row in plan.rows:
        language = [seconds.get(name, 0.0) for needed in needed_by(row, plan) for name in (needed, f"{needed}-seed1")]
        entry = ["bash", f"{row.family}/finetune.sh"] if row.command is None else ["python", row.command]
        command = [] if row.script else [*entry, "--dataset", plan.dataset]
        own = flags.get(row.name, [])[2:]  # without where the data lie
        own = own[2:] if own[:1] == ["--embedding_dir"] else own
        own = [*own, *([] if row.family == "Baselines" else ["--seed", "1"])]
        costs[row.name] = {"language model's seconds": sum(language), "milliseconds": answers.get(row.name)}
        costs[row.name]["command"] = shlex.join([*command, *own]).replace(f"{ROOT}/", "")
    return costs


def needed_by(row: Row, plan: Plan) -> set[str]:
    """Return the names of all rows that one rests on."""
    rows = {other.name: other for other in plan.rows}
    found = set(row.rests_on)
    for name in row.rests_on:
        found |= needed_by(rows[name], plan)
    return found


def time_requests(plan: Plan, folder: Path) -> dict[str, float]:
    """Return the milliseconds in which each row's first run answers one user, the median; kept in serving.json.

    A language model that ranks was timed while it did.
    """
    from seqrec.serving.answers import Query
    from seqrec.serving.run_model import Run

    file = folder / "serving.json"
    found: dict[str, float] = read_json_object(file, "delete it") if file.is_file() else {}
    for row in progress(plan.rows, desc="timing requests", unit="row"):
        runs = sorted((folder / "runs" / row.family / plan.dataset).glob(f"{row.name}*/metrics.json"))
        if runs and (seconds := read(runs[0].with_name("asked.json")).get("seconds_per_user")):
            found[row.name] = round(1000 * seconds, 2)
        if row.name in found or not runs or not (runs[0].parent / "checkpoints").is_dir():
            continue  # what trains nothing keeps nothing to be served
        model, spent = Run(runs[0].parent), []
        draw = np.random.default_rng(0)
        for number_of_request in range(REQUESTS + 5):
            history = draw.integers(1, len(model.catalogue) + 1, 10)
            start = time.perf_counter()
            model.answer([Query(history, 10, history)])
            if number_of_request >= 5:
                spent.append(time.perf_counter() - start)
        found[row.name] = round(1000 * median(spent), 2)
        write_json(file, found)
    return found


def flat(record: Record) -> Record:
    """Return a record as one line of numbers and texts."""
    line: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            line |= {f"{name} {part}": inner for part, inner in flat(value).items()}
        elif name == "difference":  # of the reference
            line |= dict.fromkeys(f"difference {part}" for part in ("mean", "low", "high", "p_holm", "clear"))
        else:
            line[name] = value
    return line


def shown(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the table."""
    labels = list(records[0]["kept"]["seen"])[:2]
    header = ["row", "family", METRIC, "Recall@10", "Δ [95 % interval]", "left out", "Δ [95 % interval]"]
    header += [f"seen {label}" for label in labels]
    header += ["training", "language model", "answer", "memory", "item vectors", "trained", "a new item needs"]
    cells = []
    for record in records:
        kept, without = record["kept"], record["left_out"]
        name = record["row"] if record["sample"] is None else f"{record['row']}, {record['sample']} users"
        line = [name, record["family"], spread(kept), number(kept["Recall@10"]), change(kept["difference"])]
        line += [spread(without), change(without["difference"])]
        line += [number(without["seen"][label][METRIC]) for label in labels]
        line += [duration(record["training seconds"]), duration(record["language model's seconds"])]
        answer = record["milliseconds"]
        line += [DASH if answer is None else f"{answer:.1f} ms", size(record["peak bytes"])]
        cells.append([*line, size(record["vector bytes"]), amount(record["trained"]), record["new item"]])
    return header, cells


def spread(found: Record) -> str:
    """Return a mean and its deviation over seeds."""
    return number(found[METRIC]) + ("" if found["sd"] is None else f" ± {number(found['sd'])}")


def change(difference: Record | None) -> str:
    """Return a difference with its star and its interval."""
    if difference is None:
        return ""
    star = "*" if difference["clear"] else ""
    return f"{number(difference['mean'], True)}{star} [{number(difference['low'])}, {number(difference['high'])}]"


def gain_of(difference: Record | None) -> Gain | None:
    """Return the mean and the interval of a difference, None where one of them is not known."""
    if difference is None or difference["mean"] is None or difference["low"] is None:
        return None
    return difference["mean"], difference["low"], difference["high"]


def draw(dataset: str, records: list[Record], users: dict[str, str]) -> dict[str, bytes]:
    """Return the pictures by file: quality against two costs, gain by how often a target was seen and by users."""
    made = {}
    label = f"{METRIC}, {PROTOCOLS['left_out']}"
    for name, cost, axis in (
        ("training", "all seconds", "seconds of training, at least 1, the language model's among them, one seed"),
        ("serving", "milliseconds", "milliseconds to answer one user"),
    ):
        known = [record for record in records if record[cost] is not None and record["sample"] is None]
        points = [Point(r["row"], r["family"], max(r[cost], LEAST[cost]), r["left_out"][METRIC]) for r in known]
        if points:
            made[f"{name}.png"] = draw_frontier(points, f"{METRIC} on {dataset}", axis, label)
    drawn = {r["row"]: r["left_out"] for r in records if r["few"] and r["left_out"]["difference"]}
    gain = f"gain over {REFERENCE.partition('/')[2]} in {METRIC}, {PROTOCOLS['left_out']}"
    seen = {name: list(found["seen"].values()) for name, found in drawn.items()}
    few = {
        name: [*(found["users"].get(count, {}).get("difference") for count in users), found["difference"]]
        for name, found in drawn.items()
        if found["users"]
    }
    for name, across, labels, lines in (
        ("seen", "how often the target was seen in training", list(records[0]["left_out"]["seen"]), seen),
        ("users", "users that were trained on", [*users.values(), "100 %"], few),
    ):
        gains = {row: list(map(gain_of, differences)) for row, differences in lines.items()}
        if gains and labels:
            made[f"{name}.png"] = draw_profiles(gains, labels, across, gain)
    return made
