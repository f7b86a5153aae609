"""The rules that keep rooms and families apart, and the import of every module."""

import ast
import functools
import importlib
import re
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import forked

ROOT = forked.ROOT
SHARED = {"seqrec", "scripts", "tests"}
FAMILIES = sorted(path.parent.name for path in ROOT.glob("[A-Z]*/__init__.py"))
ROOMS = {
    "basics": set[str](),
    "data": {"basics"},
    "nn": {"basics", "data"},
    "text": {"basics", "data", "nn"},
    "items": {"basics", "data", "nn", "text"},
    "evaluation": {"basics", "data"},
    "training": {"basics", "data", "nn", "text", "items", "evaluation"},
    "comparison": {"basics", "data", "evaluation"},
    "serving": {"basics", "data", "items", "evaluation", "training", "comparison"},
}
"""What each room of `seqrec` may import beside itself."""
PUBLISHED_LAYOUTS = Path("seqrec/data/sources")
"""A layout of files carries the name of the system that published it."""
WORKING = {"data", "runs", "embedding"}
"""Folders of the root that hold what commands write."""
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in (*FAMILIES, *SHARED)
    for path in (ROOT / folder).rglob("*.py")
    if path.relative_to(ROOT / folder).parts[0] not in WORKING or folder == "seqrec"
)
ARRAY_FILES = {"save", "savez", "savez_compressed", "load", "memmap", "fromfile", "open_memmap", "tofile"}
ARRAY_MODULES = {
    "data/comments.py",
    "basics/cache.py",
    "basics/opening.py",
    "data/preparation.py",
    "data/vectors.py",
    "serving/export.py",
    "training/folder.py",
}
"""Modules of `seqrec` that read and write arrays: sequences, tokens, ranks; item vectors in data/vectors.py alone."""


def folder_of(module: Path) -> str:
    return module.parts[0]


def dotted(module: Path) -> str:
    parts = module.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), str(module))


def imported_names(module: Path, on_import: bool = False) -> Iterator[str]:
    """Yield the modules that a module imports, in any function too unless only `on_import` counts.

    Of `from a import b` both a and a.b: b may be a module.
    """
    tree = tree_of(module)
    for node in tree.body if on_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import; name the folder"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def imported_folders(module: Path, on_import: bool = False) -> set[str]:
    """Return the project's folders that a module imports from."""
    return {name.split(".")[0] for name in imported_names(module, on_import)} & {*FAMILIES, *SHARED}


def named_family(module: Path) -> set[str]:
    """Return the family that a test's folder or a script's name names: the file belongs to it and goes with it."""
    words = module.stem.lower().split("_")
    return {family for family in FAMILIES if family.lower() in words or family in module.parts}


@pytest.mark.parametrize("folder", [*FAMILIES, *sorted(SHARED)])
def test_imports_form_a_star(folder: str) -> None:
    for module in MODULES:
        if folder_of(module) != folder:
            continue
        allowed = {"seqrec", folder} | (SHARED if folder == "tests" else set())
        if folder in {"tests", "scripts"}:
            allowed |= named_family(module)
        # A test may look at a family inside a function, once it has made sure that the family is there.
        foreign = imported_folders(module, on_import=folder == "tests") - allowed
        assert not foreign, f"{module} imports {sorted(foreign)}; it may import {sorted(allowed)} and third parties"


def test_the_scan_sees_every_kind_of_import(tmp_path: Path) -> None:
    source = (
        "import seqrec.losses\ndef f():\n    from tests import forked\n    importlib.import_module('scripts.compare')\n"
    )
    (tmp_path / "module.py").write_text(source)
    assert imported_folders(tmp_path / "module.py") == {"seqrec", "tests", "scripts"}
    assert imported_folders(tmp_path / "module.py", on_import=True) == {"seqrec"}


def test_rooms_import_only_the_rooms_before_them() -> None:
    """No arrow runs back: a room imports itself and what ROOMS lists, also inside functions."""
    found = {path.name for path in (ROOT / "seqrec").iterdir() if (path / "__init__.py").is_file()}
    assert found == set(ROOMS), "a room of seqrec is not in ROOMS, or the other way round"
    for module in MODULES:
        if folder_of(module) != "seqrec" or len(module.parts) < 3:
            continue
        room = module.parts[1]
        into = {name.split(".")[1] for name in imported_names(module) if name.startswith("seqrec.")} & set(ROOMS)
        assert into <= ROOMS[room] | {room}, f"{module} imports {sorted(into - ROOMS[room] - {room})}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    names = {dotted(module): module for module in MODULES}
    graph = {
        name: {other for other in imported_names(module) if other in names and other != name}
        for name, module in names.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import one another in a circle: {' -> '.join(error.args[1])}")
    assert len(order) == len(names)


def test_the_shared_code_names_no_family() -> None:
    """What `seqrec` says must stay true of a family that is not there yet, and when one is deleted."""
    names = re.compile(rf"\b({'|'.join(FAMILIES)})\b")
    for path in (ROOT / "seqrec").rglob("*"):
        module = path.relative_to(ROOT)
        if path.suffix in {".py", ".html"} and PUBLISHED_LAYOUTS not in module.parents:
            named = names.search(path.read_text(encoding="utf-8"))
            assert named is None, f"{module} names the family {named[0]}"


def array_calls(module: Path) -> Iterator[str]:
    """Yield the calls of a module that read or write files of arrays."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ARRAY_FILES:
            owner = ast.unparse(node.func.value)
            if owner in {"np", "numpy", "np.lib.format", "numpy.lib.format"} or node.func.attr == "tofile":
                yield f"{module}:{node.lineno} {ast.unparse(node.func)}"
        elif isinstance(node, ast.ImportFrom) and node.module in {"numpy", "numpy.lib.format"}:
            yield from (f"{module}:{node.lineno} {a.name}" for a in node.names if a.name in ARRAY_FILES)


def test_only_one_module_reads_and_writes_item_vectors() -> None:
    calls = [call for module in MODULES if folder_of(module) in FAMILIES for call in array_calls(module)]
    assert not calls, f"item vectors go through seqrec.data.vectors, not {calls}"
    touching = {module.relative_to("seqrec").as_posix() for module in MODULES if folder_of(module) == "seqrec"}
    assert {name for name in touching if any(array_calls(Path("seqrec") / name))} == ARRAY_MODULES


@pytest.mark.parametrize("family", FAMILIES)
def test_families_read_the_one_prepared_dataset(family: str) -> None:
    finders, sources = set(), ("seqrec.data.discovery", "seqrec.training.id_model")
    for module in MODULES:
        if folder_of(module) != family:
            continue
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.module in sources:
                finders |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                reads = node.attr.startswith(("read_", "scan_")) and ast.unparse(node.value) in {"pl", "pd", "polars"}
                assert not reads, (
                    f"{module}:{node.lineno} reads a table of its own; take it from seqrec.data.dataset.Dataset"
                )
    assert finders & {"open_dataset", "train_id_model"}


def test_every_module_imports() -> None:
    for module in MODULES:
        if folder_of(module) != "tests" and "peer" not in module.stem:  # a peer has an environment of its own
            importlib.import_module(dotted(module))


def leave_out(folder: str, names: list[str]) -> list[str]:
    """Return what a copy of the project leaves out: what commands wrote, caches and hidden files."""
    at_root = Path(folder) == ROOT
    return [n for n in names if n == "__pycache__" or (at_root and (n in WORKING or n.startswith(".")))]


@pytest.mark.parametrize("family", FAMILIES)
def test_deleting_a_family_breaks_nothing_else(family: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=leave_out)
    shutil.rmtree(copy / family)
    shutil.rmtree(copy / "tests" / family)
    for its_own in (*copy.glob(f"scripts/**/{family.lower()}.py"), *copy.glob(f"scripts/**/*_{family.lower()}.py")):
        its_own.unlink()
    said = tmp_path / "said"
    process = forked.start(
        forked.run_tests,
        copy,
        [
            ["--collect-only", "-qq"],
            ["-q", "tests/test_layering.py", "tests/test_metrics.py", "-k", "not deleting"],
        ],
        output=said,
    )
    process.join()
    assert process.exitcode == 0, said.read_text()[-3000:]
