"""The four rules that keep families apart, and the import of every module."""

import ast
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked

ROOT = forked.ROOT
SHARED = {"seqrec", "scripts", "tests"}
FAMILIES = sorted(path.parent.name for path in ROOT.glob("[A-Z]*/__init__.py"))
WORKING = {"data", "runs", "embedding", "__pycache__"}
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in (*FAMILIES, *SHARED)
    for path in (ROOT / folder).rglob("*.py")
    if not WORKING & set(path.parts)
)
ARRAY_FILES = {"save", "savez", "savez_compressed", "load", "memmap", "fromfile", "open_memmap", "tofile"}


def folder_of(module: Path) -> str:
    return module.parts[0]


def tree_of(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), str(module))


def imported_folders(module: Path, on_import: bool = False) -> set[str]:
    """Return the project's folders that a module imports from, in any function too unless only `on_import` counts."""
    names: list[str] = []
    tree = tree_of(module)
    for node in tree.body if on_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import; name the folder"
            names.append(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names += [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return {name.split(".")[0] for name in names} & {*FAMILIES, *SHARED}


def named_family(module: Path) -> set[str]:
    """Return the family that a test's folder or a script's name tells of: it belongs to it and goes with it."""
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
    assert not calls, f"item vectors go through seqrec.embeddings, not {calls}"
    others = {
        "dataset.py",
        "preparation.py",
        "run.py",
        "results.py",
        "cache.py",
        "opening.py",
    }  # sequences, ranks, tokens
    touching = {module.name for module in MODULES if folder_of(module) == "seqrec" and any(array_calls(module))}
    assert touching - others == {"embeddings.py"}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_read_the_one_prepared_dataset(family: str) -> None:
    finders = set()
    for module in MODULES:
        if folder_of(module) != family:
            continue
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.module in ("seqrec.dataset", "seqrec.id_model"):
                finders |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                reads = node.attr.startswith(("read_", "scan_")) and ast.unparse(node.value) in {"pl", "pd", "polars"}
                assert not reads, (
                    f"{module}:{node.lineno} reads a table of its own; take it from seqrec.dataset.Dataset"
                )
    assert finders & {"find_dataset", "train_id_model"}


@pytest.mark.parametrize("module", [m for m in MODULES if folder_of(m) != "tests"], ids=str)
def test_every_module_imports(module: Path) -> None:
    if "peer" in module.stem:
        pytest.skip("runs in the environment of a peer")
    parts = module.with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


@pytest.mark.parametrize("family", FAMILIES)
def test_deleting_a_family_breaks_nothing_else(family: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=lambda _, names: [n for n in names if n in WORKING or n.startswith(".")])
    shutil.rmtree(copy / family)
    shutil.rmtree(copy / "tests" / family)
    for its_own in copy.glob(f"scripts/*_{family.lower()}.py"):
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
