"""Writing the folder of an exported model, and what its parts lose against the model they come from.

Shapes: N items, n users, V width of an event's vector, D width of users and items.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically
from seqrec.basics.formatting import align, number, size
from seqrec.basics.names import check_name
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import progress
from seqrec.comparison.intervals import Interval, compare_means
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.splits import Split
from seqrec.evaluation.metrics import ndcg_at_k
from seqrec.evaluation.ranking import rank_targets, seen_pairs
from seqrec.serving import folder as files
from seqrec.serving.catalogue import NEIGHBOURS, Catalogue, mean_vector
from seqrec.serving.encoder import open_graph
from seqrec.serving.graph import read_histories, write_form, write_graph
from seqrec.serving.index import best_items, fit_index, recall, round_index, search, write_index
from seqrec.serving.options import ExportOptions
from seqrec.serving.readme import describe
from seqrec.serving.together import find_together
from seqrec.training.module import Recommender
from seqrec.training.restore import DAMAGED, load_run, read_protocol

log = logging.getLogger(__name__)
K = 10
"""Items of a recommendation whose loss is measured."""
PARITY = 1e-4
"""Greatest difference of a graph's user vectors from PyTorch's, as a share of the largest number in these."""
_USERS_AT_A_TIME = 1_024


def export_run(
    run: Path,
    output: Path,
    name: str | None,
    data: tuple[Path | None, Path | None],
    overwrite: bool,
    options: ExportOptions,
) -> str:
    """Write the folder of a finished run's model, and return a table of what it measured.

    Args:
        run: Folder of the run.
        output: Folder to be made.
        name: Of the model, for those who use it; by default family and run name.
        data: Folder of the dataset, if it has moved since the run, and of another catalogue to serve, if any.
        overwrite: Replace an earlier export there.
        options: What the export has.

    Raises:
        UserError: If the model cannot be exported, or the graph does not compute what the model does.
    """
    dataset, recommender = load_run(run, *data)
    metrics = read_json_object(run / "metrics.json", DAMAGED, {"family": str})
    name = check_name("--name", name or f"{metrics['family']}-{run.resolve().name}")
    with files.replace_export(output, overwrite) as folder:
        fields, table = _write(folder, name, dataset, recommender, run, options)
        fields["run"] = {"family": metrics["family"], "name": run.resolve().name}
        with write_atomically(folder / "README.md") as file:
            file.write(describe(fields).encode())
        files.write_manifest(folder, fields)
    return table


class _Measured(NamedTuple):
    """Users by whom forms are measured."""

    asked: NDArray[np.float32]
    """(m, D) of the validation, whose searches choose an index's effort."""
    asked_best: NDArray[np.int64]
    """(m, K) items of highest score among all."""
    histories: Histories
    """Of n users of the test."""
    users: NDArray[np.float32]
    """(n, D)."""
    best: NDArray[np.int64]
    """(n, K)."""
    exact: NDArray[np.float64]
    """(n,) NDCG@10 where all items are scored."""
    seen: bool
    """Whether what they have had is left out."""


def _write(
    folder: Path, name: str, dataset: Dataset, recommender: Recommender, run: Path, options: ExportOptions
) -> tuple[dict[str, Any], str]:
    """Write all files but the manifest and the README; return the manifest's fields and a table."""
    module = recommender.module
    with torch.inference_mode():
        vectors, events = (x.float().cpu().numpy() for x in (module.item_vectors(), module.event_vectors()))
    fp32 = folder / files.graph_file("fp32")
    log.info("writing the user encoder")
    write_graph(module, fp32)
    _save(folder / files.ITEM_VECTORS, vectors)
    apart = events.shape != vectors.shape or not np.array_equal(events, vectors)
    if apart:
        _save(folder / files.EVENT_VECTORS, events)
    protocol = read_protocol(run)
    # What a user has may have a score of its own, which vectors do not tell: it is left out, as where it is served.
    split, seen = protocol.hold_out(dataset), protocol.filter_seen or module.repeat_score is not None
    catalogue = _write_items(folder, dataset, split.train)
    measured = _measure(recommender, split, seen, fp32, vectors, events, options.users)
    exact = number(measured.exact.mean())
    forms, rows = {}, [["all items scored, fp32", exact, "", "", "", size(vectors.nbytes)]]
    log.info("building the index")
    index = fit_index(vectors, measured.asked, measured.asked_best, options.least_recall)
    for form in options.forms:
        forms[form], row = _write_form(folder, form, index, vectors, events, module.most_events, options, measured)
        rows.append(row)
    if "fp32" not in options.forms:
        fp32.unlink()
    fields = {
        "name": name,
        "dataset": {"name": dataset.name, "item_ids_sha256": dataset.item_ids_sha256},
        "num_items": dataset.num_items,
        "width": vectors.shape[1],
        "event_width": events.shape[1],
        "events_apart": apart,
        "most_events": module.most_events,
        "repeat_score": 0.0 if module.repeat_score is None else float(module.repeat_score),
        "attributes": list(dataset.attributes),
        "forms": list(options.forms),
        "measured": {
            "users": len(measured.users),
            "NDCG@10": float(measured.exact.mean()),
            "seen_left_out": seen,
            "by_form": forms,
        },
    }
    placed = _ndcg_of_placed(measured.users, vectors, measured.histories, seen, catalogue)
    if placed is not None:
        change = compare_means(placed[None], measured.exact[None])
        rows.append(["targets placed by their texts", number(placed.mean()), _say(change), "", "", ""])
        fields["measured"]["placed_by_text"] = [float(placed.mean()), change.mean, change.low, change.high]
    header = ["", "NDCG@10", "change [95 % interval]", "recall@10", "effort", "size"]
    return fields, align(header, rows)


def _write_items(folder: Path, dataset: Dataset, train: Histories) -> Catalogue:
    """Write what is known of the items, and which ones the same users had; return the catalogue."""
    items = dataset.item_table().with_columns(count=train.item_counts(dataset.num_items)[1:])
    with write_atomically(folder / files.ITEMS) as file:
        items.write_parquet(file)
    if (together := find_together(train, dataset.num_items)) is not None:
        _save(folder / files.TOGETHER, together)
    return Catalogue(items, dataset.attributes)


def _measure(
    recommender: Recommender,
    split: Split,
    seen: bool,
    graph: Path,
    vectors: NDArray[np.float32],
    events: NDArray[np.float32],
    most_users: int,
) -> _Measured:
    """Return the users by whom forms are measured, as the fp32 graph reads them, which is compared with PyTorch."""
    draw = np.random.default_rng(0)
    tuned_on, tested_on = (
        view.select(np.sort(draw.choice(len(view), min(most_users, len(view)), replace=False)))
        for view in (split.valid, split.test)
    )
    session, most = open_graph(graph, num_threads=0), recommender.module.most_events
    asked, users = (read_histories(session, events, view, most) for view in (tuned_on, tested_on))
    _check_parity(recommender, tested_on, users)
    asked_best, best = (best_items(vectors, some, min(K, len(vectors) - 1)) for some in (asked, users))
    return _Measured(asked, asked_best, tested_on, users, best, _ndcg_of_all(users, vectors, tested_on, seen), seen)


def _write_form(
    folder: Path,
    form: str,
    whole: Any,
    vectors: NDArray[np.float32],
    events: NDArray[np.float32],
    most: int,
    options: ExportOptions,
    measured: _Measured,
) -> tuple[dict[str, Any], list[str]]:
    """Write the user encoder and the index, whole in fp32, in a form; return what is said of it."""
    graph, path = folder / files.graph_file(form), folder / files.index_file(form)
    if form != "fp32":
        write_form(folder / files.graph_file("fp32"), form, graph)
    index = round_index(whole, form, vectors, measured.asked, measured.asked_best, options.least_recall)
    read = read_histories(open_graph(graph, 0), events, measured.histories, most)
    found = _ndcg_of_found(index, vectors, read, measured.histories, measured.seen)
    change = compare_means(found[None], measured.exact[None])
    share = recall(search(index, vectors, measured.users, measured.best.shape[1])[0], measured.best)
    write_index(index, path)
    fields = {
        "effort": index.hnsw.efSearch,
        "recall@10": round(share, 5),
        "NDCG@10": float(found.mean()),
        "change": [change.mean, change.low, change.high],
    }
    told = f"{share:.4f}", str(index.hnsw.efSearch), size(path.stat().st_size)
    return fields, [f"index, {form}", number(found.mean()), _say(change), *told]


def _say(change: Interval) -> str:
    return f"{number(change.mean, True)} [{number(change.low, True)}, {number(change.high, True)}]"


def _save(path: Path, array: NDArray[Any]) -> None:
    with write_atomically(path) as file:
        np.save(file, array, allow_pickle=False)


def _check_parity(recommender: Recommender, histories: Histories, users: NDArray[np.float32]) -> None:
    """Compare the graph's user vectors with those of PyTorch.

    Raises:
        UserError: If they differ.
    """
    worst, largest = 0.0, 0.0
    for start in range(0, len(histories), _USERS_AT_A_TIME):
        rows = np.arange(start, min(start + _USERS_AT_A_TIME, len(histories)))
        with torch.inference_mode():
            expected = recommender.module.user_vectors(recommender.make_inputs(histories, rows)).float().cpu().numpy()
        worst = max(worst, float(np.abs(expected - users[rows]).max()))
        largest = max(largest, float(np.abs(expected).max()))
    if not worst <= PARITY * largest:
        raise UserError(
            f"the exported user encoder differs from the model by {worst:.2g}, more than {PARITY} of {largest:.2g}"
        )
    log.info("the user encoder differs from PyTorch's by %.1g at most, of numbers up to %.2g", worst, largest)


def _ndcg_of_all(
    users: NDArray[np.float32], vectors: NDArray[np.float32], histories: Histories, leave_out_seen: bool
) -> NDArray[np.float64]:
    """Return each user's NDCG@10 where all items are scored, (n,)."""
    ranks = []
    for start in range(0, len(users), _USERS_AT_A_TIME):
        rows = np.arange(start, min(start + _USERS_AT_A_TIME, len(users)))
        seen = seen_pairs(histories, rows) if leave_out_seen else None
        targets = torch.from_numpy(histories.targets[rows])
        ranks.append(rank_targets(torch.from_numpy(users[rows]), torch.from_numpy(vectors), targets, seen=seen).ranks)
    return ndcg_at_k(torch.cat(ranks).numpy(), K)


def _ndcg_of_found(
    index: Any,
    vectors: NDArray[np.float32],
    users: NDArray[np.float32],
    histories: Histories,
    leave_out_seen: bool,
) -> NDArray[np.float64]:
    """Return each user's NDCG@10 of what the index finds, (n,)."""
    targets, height = histories.targets[:, None], len(vectors)
    more = int(histories.lengths.max()) if leave_out_seen else 0
    found, _ = search(index, vectors, users, min(K + more, height - 1))
    hidden = np.zeros(found.shape, dtype=bool)
    if leave_out_seen:
        rows, items = (x.numpy() for x in seen_pairs(histories, np.arange(len(histories))))
        own = np.arange(len(found))[:, None] * height
        hidden = np.isin(own + found, rows * height + items) & (found != targets)
    hit = (found == targets) & ~hidden
    before = np.cumsum(~hidden, axis=1)[np.arange(len(found)), hit.argmax(axis=1)] - 1
    return ndcg_at_k(np.where(hit.any(axis=1), before, K).astype(np.int64), K)


def _ndcg_of_placed(
    users: NDArray[np.float32],
    vectors: NDArray[np.float32],
    histories: Histories,
    leave_out_seen: bool,
    catalogue: Catalogue,
) -> NDArray[np.float64] | None:
    """Return each user's NDCG@10, (n,), as if their target had just been added by its text; None without texts.

    A target whose words no other item has is not found.
    """
    items, places = np.unique(histories.targets, return_inverse=True)
    made = np.zeros((len(items), vectors.shape[1]), dtype=np.float32)
    found = np.zeros(len(items), dtype=bool)
    for place, item in enumerate(progress(items.tolist(), desc="placing items by their texts")):
        if (words := catalogue.words_of(item)) is None:
            continue
        near, cosines = catalogue.nearest_texts(words, NEIGHBOURS + 1)
        others = near != item
        found[place] = others.any()
        if found[place]:
            made[place] = mean_vector(vectors, near[others][:NEIGHBOURS], cosines[others][:NEIGHBOURS])
    if not found.any():
        return None
    ranks = np.full(len(users), K)
    for start in range(0, len(users), _USERS_AT_A_TIME):
        rows = np.arange(start, min(start + _USERS_AT_A_TIME, len(users)))
        own = np.einsum("bd,bd->b", users[rows], made[places[rows]])
        scores = users[rows] @ vectors.T
        if leave_out_seen:
            scores[tuple(x.numpy() for x in seen_pairs(histories, rows))] = -np.inf
        scores[:, 0] = scores[np.arange(len(rows)), histories.targets[rows]] = -np.inf
        ranks[rows] = (scores >= own[:, None]).sum(axis=1)
    return np.where(found[places], ndcg_at_k(ranks, K), 0)
