"""The command that recommends, on a run of made-up vectors."""

import shutil
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
from seqrec.data.dataset import Dataset, Histories, load_dataset
from seqrec.training import recommend as recommending
from seqrec.training import restore
from seqrec.training.module import NextItemModule, Recommender
from seqrec.training.requests import choose_histories, find_items, hide_items, read_histories, read_ids
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
    with pytest.raises(ValueError, match="not several"):
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


def test_a_history_by_titles(tiny: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    main(Config(Path("run"), history=("title of ITEM-3", "item-20"), top_k=1, include_seen=True, device="cpu"))
    assert "item-20" in capsys.readouterr().out
    assert find_items(tiny, ["Title of item-7", "item-2"]).tolist() == [7, 2]
    with pytest.raises(UserError, match=r"or a title in full; its name is part of 'Title of item-10' \(item-10\)"):
        find_items(tiny, ["itle of item-10"])


def test_several_items_of_one_title_are_told_apart_by_id(tiny_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_path, tmp_path / "tiny"))
    table = pl.read_parquet(folder / "items.parquet").with_columns(title=pl.lit("the same"))
    table.write_parquet(folder / "items.parquet")
    with pytest.raises(UserError, match="40 items have the title 'the same': name one by its id, such as 'item-1'"):
        find_items(load_dataset(folder), ["the same"])


def test_what_is_blocked_and_what_is_allowed(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("item-5\nitem-9\n\nnot-there\nitem-30\n")
    pl.DataFrame({"item": ["item-9"]}).write_parquet(tmp_path / "block.parquet")
    out = tmp_path / "all.parquet"
    given = {"allow": tmp_path / "allow", "block": tmp_path / "block.parquet", "output": out, "include_seen": True}
    main(Config(Path("run"), top_k=40, device="cpu", **given))  # type: ignore[arg-type]
    table = pl.read_parquet(out)
    assert table["user"].n_unique() == 90 and set(table["item"]) == {"item-5", "item-30"} and len(table) == 180
    (tmp_path / "allow").write_text("item-9")
    with pytest.raises(UserError, match="leave no item"):
        hide_items(tiny, tmp_path / "block.parquet", tmp_path / "allow")
    (tmp_path / "allow").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no text in UTF-8"):
        read_ids(tmp_path / "allow")
    pl.DataFrame({"id": ["item-9"]}).write_parquet(tmp_path / "block.parquet")
    with pytest.raises(UserError, match="expected item"):
        read_ids(tmp_path / "block.parquet")
    with pytest.raises(UserError, match="does not exist"):
        read_ids(tmp_path / "absent")


def test_histories_of_a_file(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    histories = [["item-3", "gone", "item-20"], [], ["gone"], ["item-8"]]
    asked = pl.DataFrame({"user": [4, 5, 6, 7], "history": histories})
    asked.write_parquet(tmp_path / "asked.parquet")
    with caplog.at_level("INFO"):
        names, found = read_histories(tmp_path / "asked.parquet", tiny)
    assert "2 events with items that tiny does not have, and 2 users" in caplog.text
    assert names == ["4", "7"] and found.items.tolist() == [3, 20, 8] and found.lengths.tolist() == [2, 1]
    main(Config(Path("run"), input=tmp_path / "asked.parquet", top_k=2, output=tmp_path / "out.csv", device="cpu"))
    table = pl.read_csv(tmp_path / "out.csv")
    assert table["user"].to_list() == [4, 4, 7, 7]
    assert sorted(table["item"].to_list()[2:]) == ["item-7", "item-9"]
    asked.drop("history").write_parquet(tmp_path / "asked.parquet")
    with pytest.raises(UserError, match="expected user, and history as lists"):
        read_histories(tmp_path / "asked.parquet", tiny)
    pl.DataFrame({"user": ["a"], "history": [["gone"]]}).write_parquet(tmp_path / "asked.parquet")
    with pytest.raises(UserError, match="nobody with an item of tiny"):
        read_histories(tmp_path / "asked.parquet", tiny)


def test_machines_share_the_shards_of_a_folder(tiny: Dataset, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole.parquet", tmp_path / "shards"
    main(Config(Path("run"), output=whole, device="cpu"))
    config = Config(Path("run"), output=folder, shard_users=20, machines=2, device="cpu")
    main(replace(config, machine=1))
    assert sorted(path.stem for path in folder.glob("*.parquet")) == ["part-00001", "part-00003"]
    main(config)
    parts = [pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    assert pl.concat(parts).equals(pl.read_parquet(whole))
    with pytest.raises(UserError, match="--machine 2 must be below --machines 2"):
        replace(config, machine=2)
    with pytest.raises(UserError, match="--machines 2 share the files of --shard_users"):
        replace(config, shard_users=0)


def test_shards_go_on_after_a_kill(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder = tmp_path / "whole.parquet", tmp_path / "shards"
    main(Config(Path("run"), top_k=5, output=whole, device="cpu"))
    config = Config(Path("run"), top_k=5, output=folder, shard_users=40, device="cpu")

    calls: list[int] = []
    ask = recommending.recommend

    def killed(*arguments: Any) -> Any:
        calls.append(len(arguments[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask(*arguments)

    monkeypatch.setattr(recommending, "recommend", killed)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "part-00000.parquet"]
    main(config)
    assert calls == [40, 40, 40, 10]
    parts = [pl.read_parquet(folder / f"part-0000{part}.parquet") for part in range(3)]
    assert pl.concat(parts).equals(pl.read_parquet(whole))
    with pytest.raises(UserError, match="holds something else than a part of this"):
        main(replace(config, top_k=6))
    with pytest.raises(UserError, match="--shard_users writes a folder"):
        replace(config, output=whole)
    with pytest.raises(UserError, match="give one of --users, --history and --input"):
        replace(config, input=whole, users=("user-1",))
