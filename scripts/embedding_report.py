"""Report statistics of item vectors on the screen, and spectra and nearest neighbours on a page.

python scripts/embedding_report.py --dataset demo
"""

import base64
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import align
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.comparison.page import render_page
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.data.splits import leave_one_out
from seqrec.data.vector_statistics import Statistics, describe_vectors, draw_transitions, nearest, unit_rows
from seqrec.data.vectors import advise_export, load_embeddings, name_of
from seqrec.nn.geometry import Transform, transform_vectors

TEMPLATE = Path(__file__).with_suffix(".html")
COLUMNS = (
    ("width", "width", "d"),
    ("mean cosine", "mean_cosine", ".3f"),
    ("effective rank", "effective_rank", ".1f"),
    ("dimensions for 90 %", "directions", "d"),
    ("alignment", "alignment", ".3f"),
    ("uniformity", "uniformity", ".2f"),
    ("next item", "next_item", ".4f"),
)


@dataclass(frozen=True, slots=True)
class Config:
    """Describe item vectors in numbers and on a page."""

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    init_types: tuple[str, ...] = ()
    """Item vectors: names in embedding/DATASET/ or files; all that lie there if not given."""
    transforms: tuple[Transform, ...] = ("none", "standardise", "whiten", "shrink")
    """Transforms to show, each applied alone; values as of --init_transform."""
    items: int = 8
    """Number of items whose nearest neighbours are shown, drawn by popularity."""
    neighbours: int = 5
    """Number of neighbours of each."""
    transitions: int = 5_000
    """Number of pairs of consecutive items, from training histories, that alignment and next item are measured on."""
    seed: int = 0
    """Seed of the pairs and items that are drawn."""
    embedding_dir: Path = ROOT / "embedding"
    """Folder of item vectors, <dataset>/<name>.npy."""
    output_dir: Path | None = None
    """Folder of the page and the JSON; runs/embeddings/DATASET if not given."""

    def __post_init__(self) -> None:
        if min(self.items, self.neighbours, self.transitions) < 1 or not self.transforms:
            raise UserError("--items, --neighbours and --transitions must be at least 1; --transforms not empty")
        names = [name_of(name) for name in self.init_types]
        if len(set(names)) < len(names):
            raise UserError(f"--init_types names two alike: {' '.join(names)}; rename a file")


def list_vectors(dataset: Dataset, folder: Path) -> list[str]:
    """Return the names of all item vectors that a dataset has.

    Raises:
        MissingFileError: If it has none.
    """
    names = sorted(path.stem for path in (folder / dataset.name).glob("*.npy"))
    if not names:
        raise MissingFileError(
            f"{folder / dataset.name} holds no item vectors (.npy). {advise_export(dataset.name)}, "
            "or name files with --init_types"
        )
    return names


def measure(config: Config, dataset: Dataset, vectors: dict[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Return one row of statistics per set of vectors and transform."""
    train = leave_one_out(dataset).train
    fitted = train.item_counts(dataset.num_items) > 0
    pairs = draw_transitions(train, config.transitions, config.seed)
    if not len(pairs):
        raise UserError(f"{dataset.name} has no training history of two items: there is no next item to look at")
    rows = []
    todo = [(name, transform) for name in vectors for transform in config.transforms]
    for name, transform in progress(todo, desc="measuring"):
        changed = transform_vectors(vectors[name], (transform,), fitted, vectors[name].shape[1], 0.02)
        rows.append({"vectors": name, "transform": transform, "statistics": describe_vectors(changed, pairs)})
    return rows


def format_text(rows: list[dict[str, Any]]) -> str:
    """Return the numbers as an aligned table."""
    head = ["vectors", "transform", *(title for title, _, _ in COLUMNS)]
    cells = [[row["vectors"], row["transform"], *format_numbers(row["statistics"])] for row in rows]
    return align(head, cells, names=2)


def format_numbers(statistics: Statistics) -> list[str]:
    """Return a row's cells."""
    values = asdict(statistics)
    return [format(values[name], form) for _, name, form in COLUMNS]


def draw_spectra(rows: list[dict[str, Any]]) -> str:
    """Return a PNG of the variance that the first directions hold, in base64."""
    figure = Figure(figsize=(8, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for row in rows:
        if row["transform"] in ("none", "shrink"):
            held = np.cumsum(row["statistics"].spectrum)
            style = "-" if row["transform"] == "none" else "--"
            axes.plot(np.arange(1, len(held) + 1), held, style, label=f"{row['vectors']}, {row['transform']}")
    axes.set_xscale("log")
    axes.set_xlabel("principal directions", fontsize=9)
    axes.set_ylabel("share of the variance", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


def list_neighbours(config: Config, dataset: Dataset, vectors: dict[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Return some popular items with their nearest by each set of vectors, as text."""
    counts = leave_one_out(dataset).train.item_counts(dataset.num_items).astype(np.float64)
    drawn = np.random.default_rng(config.seed).choice(
        len(counts), min(config.items, int((counts > 0).sum())), replace=False, p=counts / counts.sum()
    )
    table = dataset.item_table().drop("item", *(["raw_id"] if dataset.attributes else []))
    texts = ["", *(" · ".join(part for part in row if part) for row in table.rows())]
    found = {name: nearest(unit_rows(array), drawn, config.neighbours) for name, array in vectors.items()}
    return [
        {
            "item": texts[item],
            "count": int(counts[item]),
            "neighbours": [(name, [texts[other] for other in found[name][place]]) for name in vectors],
        }
        for place, item in enumerate(drawn)
    ]


def main(config: Config) -> None:
    """Print the numbers and write the page."""
    dataset = open_dataset(config.dataset, config.data_path)
    init_types = config.init_types or list_vectors(dataset, config.embedding_dir)
    vectors = {name_of(name): load_embeddings(name, dataset, config.embedding_dir) for name in init_types}
    rows = measure(config, dataset, vectors)
    print(format_text(rows))
    folder = config.output_dir or ROOT / "runs" / "embeddings" / dataset.name
    records = [row | {"statistics": asdict(row["statistics"])} for row in rows]
    page = render_page(
        TEMPLATE,
        dataset=dataset,
        columns=[title for title, _, _ in COLUMNS],
        rows=[(row["vectors"], row["transform"], format_numbers(row["statistics"])) for row in rows],
        spectra=draw_spectra(rows),
        items=list_neighbours(config, dataset, vectors),
    )
    write_json(folder / "embeddings.json", {"dataset": dataset.name, "rows": records})
    with write_atomically(folder / "embeddings.html") as file:
        file.write(page.encode())
    print(folder / "embeddings.html")


if __name__ == "__main__":
    run_command(main, Config)
