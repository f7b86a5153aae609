"""Finding the dataset that `--dataset` or `--data_path` names; raw folders and the demo are prepared first.

A raw folder is recognised by its files and prepared once: the result is recorded under a hash of its content.
"""

import hashlib
import logging
from dataclasses import replace
from glob import escape
from pathlib import Path

from seqrec.basics.errors import UserError
from seqrec.basics.files import exclusive, write_json
from seqrec.basics.names import check_name
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import Dataset, find_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.atomic import Atomic
from seqrec.data.sources.demo import Demo
from seqrec.data.sources.pickled import Pickled
from seqrec.data.sources.recformer import JsonSplits

log = logging.getLogger(__name__)
DEMOS = {
    demo.name: demo
    for demo in (
        Demo(),
        Demo(name="demo-small", num_users=300, num_items=200),
        Demo(name="demo-other", num_users=300, num_items=220, seed=43),
    )
}
"""Made-up shops that are prepared when a command first names them."""
PICKLE, META = "dataset.pkl", "meta_data.json"
JSON_FILES = ("train.json", "val.json", "test.json", "smap.json", META)
RAW_PLACES = (
    "*/finetune_data/{name}",
    "*/preprocessed/{name}",
    "*/preprocessed/{name}_min_rating*",
    "*/Data/preprocessed/{name}",
    "*/Data/preprocessed/{name}_min_rating*",
)
"""Where published data lie in the folders of the project, by the dataset's name."""


def open_dataset(dataset: str | None, data_path: Path | None, data_dir: Path = ROOT / "data") -> Dataset:
    """Return the dataset that the flags name, `demo` without any; prepare it first if necessary.

    Args:
        dataset: A prepared dataset of `data_dir`, a made-up shop of DEMOS, or published data at one of RAW_PLACES.
        data_path: A prepared dataset elsewhere, or a raw folder.
        data_dir: Folder of the prepared datasets.

    Raises:
        UserError: If both are given, or the raw data are faulty.
        MissingFileError: If nothing of that name is there.
    """
    if dataset is None and data_path is None:
        dataset = "demo"
    if dataset is None or data_path is not None or (data_dir / dataset / "manifest.json").is_file():
        is_raw = data_path is not None and dataset is None and recognise(data_path) is not None
        raw = data_path if is_raw else None
    elif dataset in DEMOS:
        demo = DEMOS[dataset]
        log.info("preparing the made-up shop %s (%s users) in %s", dataset, f"{demo.num_users:,}", data_dir / dataset)
        prepare(replace(demo, data_dir=data_dir))
        raw = None
    else:
        raw = _find_raw(check_name("--dataset", dataset))
    return find_dataset(dataset, data_path, data_dir) if raw is None else _prepare_once(raw, data_dir)


def recognise(path: Path) -> Pickled | JsonSplits | Atomic | None:
    """Return the source that reads a raw folder or file; None if it is prepared or of no known layout."""
    folder = path.parent if path.name == PICKLE else path
    name = folder.name.partition("_min_rating")[0]
    if not folder.is_dir() or (folder / "manifest.json").is_file():
        return None
    if (folder / PICKLE).is_file():
        meta = folder / META
        return Pickled(name=name, input=folder / PICKLE, items=meta if meta.is_file() else None)
    if all((folder / file).is_file() for file in JSON_FILES):
        return JsonSplits(name=name, input=folder)
    return Atomic(name=name, input=folder) if any(folder.glob("*.inter")) else None


def _find_raw(name: str) -> Path | None:
    """Return the folder of published data of a name, if there is one.

    Raises:
        UserError: If there are several, and they differ.
    """
    found: dict[str, Path] = {}
    for pattern in RAW_PLACES:
        for path in sorted(ROOT.glob(pattern.format(name=escape(name)))):
            if (source := recognise(path)) is not None:
                found.setdefault(_hash_files(source), path)
    if len(found) > 1:
        listed = " or ".join(str(path.relative_to(ROOT)) for path in found.values())
        raise UserError(f"--dataset {name} could be {listed}, which differ: give one of them as --data_path")
    return next(iter(found.values()), None)


def _prepare_once(path: Path, data_dir: Path) -> Dataset:
    """Return the dataset of a raw folder; its name gets a hash if another dataset has the plain name."""
    source = recognise(path.resolve())
    assert source is not None
    digest = _hash_files(source)
    note = data_dir / ".raw" / f"{digest[:24]}.json"
    with exclusive(note.with_suffix(".lock"), f"waiting for another process that prepares {path}"):
        name = ""
        if note.is_file():
            name = check_name(f"{note}: name", read_json_object(note, f"delete {note}", {"name": str})["name"])
        if not name or not (data_dir / name / "manifest.json").is_file():
            taken = (data_dir / source.name).exists()
            name = f"{source.name}-{digest[:8]}" if taken else source.name
            log.info("%s holds raw data of the layout `%s`: preparing it as %s", path, source.kind, data_dir / name)
            prepare(replace(source, name=name, data_dir=data_dir))
            write_json(note, {"name": name})
    return find_dataset(None, data_dir / name)


def _hash_files(source: Pickled | JsonSplits | Atomic) -> str:
    """Return a hash of the names and contents of the files that a source may read."""
    if isinstance(source, Pickled):
        files = [source.input, *([source.items] if source.items is not None else [])]
    else:
        files = sorted(path for path in source.input.iterdir() if path.is_file() and not path.name.startswith("."))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()
