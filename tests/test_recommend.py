"""The command that recommends, on a run of made-up vectors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import seqrec
from scripts.recommend import Config, main
from seqrec.basics.errors import UserError
from seqrec.basics.settings import as_flags
from seqrec.data.dataset import Dataset, Histories
from seqrec.training import restore
from seqrec.training.module import NextItemModule, Recommender
from seqrec.training.recommend import choose_histories
from seqrec.training.restore import load_run


class LastItem(NextItemModule):
    """Scores an item by how near its number is to the last one's."""

    def user_vectors(self, inputs: Any) -> Tensor:
        last = torch.as_tensor(inputs, dtype=torch.float32)
        return torch.stack([2 * last, torch.ones_like(last)], dim=1)

    def item_vectors(self) -> Tensor:
        number = torch.arange(41, dtype=torch.float32)
        return torch.stack([number, -(number**2)], dim=1)


@pytest.fixture(autouse=True)
def toy_run(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(histories: Histories, rows: Any) -> Any:
        return torch.from_numpy(histories.items[histories.ends[rows] - 1].astype(np.float32))

    recommender = Recommender(LastItem(), read, lambda histories: histories.lengths)
    monkeypatch.setattr(restore, "load_run", lambda *_: (tiny, recommender))


def history_of(tiny: Dataset, user: int) -> list[int]:
    items: list[int] = tiny.items[tiny.offsets[user] : tiny.offsets[user + 1]].tolist()
    return items


def nearest(last: int, left_out: set[int], k: int) -> list[int]:
    return sorted(set(range(1, 41)) - left_out, key=lambda item: (item - last) ** 2)[:k]


def test_users_get_what_they_do_not_have(tiny: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    main(Config(Path("run"), users=("user-5", "user-2"), top_k=4, device="cpu"))
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("user-")] == ["user-5", "user-2"]
    for start, user in ((1, 5), (6, 2)):
        had = history_of(tiny, user)
        distances = [abs(int(line.split()[2].removeprefix("item-")) - had[-1]) for line in said[start : start + 4]]
        assert distances == [abs(item - had[-1]) for item in nearest(had[-1], set(had), 4)]
        assert all("Title of item-" in line for line in said[start : start + 4])


def test_a_history_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(Config(Path("run"), history=("item-3", "item-20"), top_k=1, include_seen=True, device="cpu"))
    assert capsys.readouterr().out.split() == ["history", "1", "400.0000", "item-20", "Title", "of", "item-20"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_everybody_into_a_file(tiny: Dataset, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"new/all.{suffix}"
    main(Config(Path("run"), top_k=40, output=file, max_tokens=50, device="cpu"))
    table = pl.read_parquet(file) if suffix == "parquet" else pl.read_csv(file)
    for user in (0, 17, 89):
        rows = table.filter(pl.col("user") == f"user-{user}")
        had = set(history_of(tiny, user))
        assert rows["rank"].to_list() == list(range(1, 41 - len(had)))  # all there are
        assert rows["title"].to_list() == [f"Title of {item}" for item in rows["item"]]
        assert {int(item.removeprefix("item-")) for item in rows["item"]} == set(range(1, 41)) - had
    assert table["user"].unique(maintain_order=True).to_list() == [f"user-{u}" for u in range(90)]


def test_what_is_unknown_is_named(tiny: Dataset) -> None:
    with pytest.raises(ValueError, match="tiny has no user 'nobody'"):
        choose_histories(tiny, users=["nobody"])
    with pytest.raises(ValueError, match="tiny has no item 'nothing'"):
        choose_histories(tiny, history=["nothing"])
    with pytest.raises(ValueError, match="90 users are too many for the screen: give --output"):
        main(Config(Path("run")))
    with pytest.raises(ValueError, match="not both"):
        Config(Path("run"), users=("a",), history=("b",))
    with pytest.raises(ValueError, match=r"must end in .parquet or .csv"):
        Config(Path("run"), output=Path("x.txt"))


def test_flags_are_those_of_the_run() -> None:
    settings = {"lr": 0.1, "resume": True, "overwrite": False, "metric_ks": [1, 10], "run_name": None}
    assert as_flags(settings) == ["--lr", "0.1", "--resume", "--no_overwrite", "--metric_ks", "1", "10"]


def test_a_folder_without_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"holds no finished run: metrics.json is missing"):
        load_run(tmp_path)


def test_a_family_in_the_runs_folder_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "runs" / "SASRec" / "shared"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()
    (run / "metrics.json").write_text('{"family": "runs.SASRec.shared", "protocol": {}}')
    (run / "finetune.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    with pytest.raises(UserError, match=r"metrics.json: family must be one of .*SASRec, got 'runs.SASRec.shared'"):
        load_run(run)
    assert not (tmp_path / "executed").exists()


def test_who_was_filtered_out_is_told_by_what(tiny: Dataset) -> None:
    source = {"kind": "table", "min_uc": 5, "min_sc": 0, "on_missing_text": "drop", "where": ""}
    filtered = replace(tiny, manifest={**tiny.manifest, "source": source})
    expected = r"no user 'rare'.*preparation left out what --on_missing_text drop and --min_uc 5 did not keep$"
    with pytest.raises(ValueError, match=expected):
        choose_histories(filtered, users=["rare"])


@pytest.mark.parametrize(("file", "content"), [("metrics", "{}"), ("metrics", "[]"), ("metrics", ""), ("config", "[]")])
def test_a_damaged_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str) -> None:
    monkeypatch.undo()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    (tmp_path / "metrics.json").write_text('{"family": "SASRec", "protocol": {}}')
    (tmp_path / f"{file}.json").write_text(content)
    with pytest.raises(UserError, match=rf"{file}.json .*: the run's folder is damaged: delete it and run it again"):
        load_run(tmp_path)


def test_a_frame_has_the_rows_of_the_file(tiny: Dataset, tmp_path: Path) -> None:
    main(Config(Path("run"), users=("user-5", "user-2"), top_k=3, output=tmp_path / "some.parquet", device="cpu"))
    frame = seqrec.recommendations("run", users=["user-5", "user-2"], top_k=3, device="cpu")
    assert frame.to_dict("list") == pl.read_parquet(tmp_path / "some.parquet").to_dict(as_series=False)
    own = seqrec.recommendations("run", history=["item-3", "item-20"], top_k=1, include_seen=True, device="cpu")
    assert own[["user", "rank", "item"]].values.tolist() == [["history", 1, "item-20"]]
