"""Files as others may have made them: what was expected, or one sentence that says what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_array, read_json_object, read_parquet
from seqrec.basics.tensors import read_tensors, read_torch

REPAIR = "make it again"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"[1, 2]", "holds a list of 2, expected an object"),
        (b"null", "holds null, expected an object"),
        (b'{"seed": 1', "not JSON in line 1"),
        (b'{"seed": "\xff"}', r"not UTF-8 \(byte 10\)"),
        (b'{"seed": 1, "seed": 2}', "the key 'seed' occurs twice"),
        (b'{"seed": true}', "'seed' is true, expected int"),
        (b'{"seed": 1.0}', r"'seed' is 1\.0, expected int"),
        (b"{}", "has no 'seed', expected int"),
        (b'{"seed": 1, "x": ' + b"[" * 101 + b"]" * 101 + b"}", "nests brackets deeper than 100 levels"),
        (b'{"seed": 1, "x": ' + b"[" * 100_000, "nests brackets deeper than 100 levels"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"seed": 1, "\\ud800": 2}', "surrogates not allowed"),
        (b'{"seed": 1, "x": [NaN]}', "nan is no number"),
        (b'{"seed": 1, "x": 1e999}', "inf is no number"),
    ],
)
def test_faulty_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.json.*{message}.*: make it again"):
        read_json_object(tmp_path / "a.json", REPAIR, {"seed": int}, finite=True)


def test_json_with_a_mark_and_what_may_be_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(
        b'\xef\xbb\xbf{"lr": 1, "best": null, "loss": NaN, "deep": ' + b"[" * 99 + b"]" * 99 + b"}"
    )
    value = read_json_object(tmp_path / "a.json", REPAIR, {"lr": float, "best": (int, type(None))})
    assert (value["lr"], value["best"], np.isnan(value["loss"])) == (1, None, True)


def npy(header: str, values: bytes = bytes(64)) -> bytes:
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + values


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (17,)}"),
        npy("(" * 300),
        npy("[]"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_faulty_arrays_are_named(tmp_path: Path, content: bytes, mapped: bool) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npy is no whole \.npy file of numbers .*: make it again"):
        read_array(tmp_path / "a.npy", REPAIR, mapped)


def test_arrays_are_read(tmp_path: Path) -> None:
    for array in (np.zeros((0, 3)), np.array(3), np.asfortranarray(np.arange(6.0).reshape(2, 3))):
        np.save(tmp_path / "a.npy", array)
        for mapped in (False, True):
            found = read_array(tmp_path / "a.npy", REPAIR, mapped)
            assert np.array_equal(found, array)
            assert isinstance(found, np.memmap) == mapped


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("content", [{}, [1], {1: torch.ones(2)}, torch.ones(2), 3, {"a": 1}])
def test_what_holds_no_tensors_by_name_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt holds .*: save the model's state_dict"):
        read_tensors(tmp_path / "a.pt")


def test_faulty_files_of_tensors_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.arange(100.0)}, tmp_path / "whole.pt")
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    torch.save({"a": torch.eye(2).to_sparse()}, tmp_path / "sparse.pt")
    save_file({"a": torch.arange(100.0)}, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        for size in (0, 1, 10, len(content) // 2, len(content) - 1):
            file = tmp_path / f"cut-{size}{Path(name).suffix}"
            file.write_bytes(content[:size])
            with pytest.raises(UserError, match=r"cut-\d+\.\w+ is no whole"):
                read_tensors(file)
    huge = b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}'
    for name, header in (("list", b"[]"), ("type", b'{"a": {"dtype": "X9", "shape": [1]}}'), ("huge", huge)):
        (tmp_path / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(UserError, match=rf"{name}\.safetensors is no whole"):
            read_tensors(tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"evil\.pt is no whole file of tensors"):
        read_torch(tmp_path / "evil.pt")
    assert not Path("executed").exists()
    with pytest.raises(UserError, match=r"'a' is torch\.sparse_coo torch\.float32 on cpu, expected a plain array"):
        read_tensors(tmp_path / "sparse.pt")


def test_tensors_lie_under_outer_keys(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"module": {"a": torch.ones(2), "n": 1}}}, tmp_path / "a.ckpt")
    assert list(read_tensors(tmp_path / "a.ckpt", nestings=("state_dict", "module"))) == ["a"]


def test_a_path_of_a_table_is_no_pattern(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x[1].parquet")
    pl.DataFrame({"a": [2]}).write_parquet(tmp_path / "x1.parquet")
    assert read_parquet(tmp_path / "x[1].parquet", REPAIR)["a"].to_list() == [1]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x1.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cut\.parquet is no whole Parquet file .*: make it again"):
        read_parquet(tmp_path / "cut.parquet", REPAIR)
    with pytest.raises(MissingFileError, match=r"\*\.parquet does not exist: make it again"):
        read_parquet(tmp_path / "*.parquet", REPAIR)
