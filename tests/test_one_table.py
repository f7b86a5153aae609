"""One table of every way of using a language model: its rows, its plan, and a short run of each family."""

import importlib
import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import one_table
from scripts.one_table import Config, Maker
from scripts.one_table_plan import Plan, Row, choose_rows, fit_budget, read_rows, rows_for, show_plan
from scripts.search_space import draw, read_search, read_start
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.comparison.frontier import Point, draw_frontier, frontier
from seqrec.text import smollm2
from seqrec.text.packages import package_folder
from tests import forked
from tests.conftest import write_dataset

ROWS, SEARCHES, _ = read_rows()


def row(name: str, minutes: float, **options: Any) -> Row:
    return Row(name=name, family="SASRec", flags="", why="", minutes={"demo": minutes}, **options)


PLAN = Plan(
    "demo",
    (
        row("cheap", 1, search="id"),
        row("dear", 10, gib={"demo": 3}),
        row("reader", 1, needs=("dear",)),
        row("drawn once", 2, seeds=1),
    ),
    (),
    trials=5,
    seeds=3,
    pace=2.0,
)


def test_what_a_plan_takes() -> None:
    assert [PLAN.minutes(each) for each in PLAN.rows] == [16, 60, 6, 4]
    assert PLAN.hours() == pytest.approx(86 / 60)
    assert PLAN.hours(2) == pytest.approx((60 + 6) / 60)  # the others beside what "reader" waits for
    assert replace(PLAN, measured={"cheap": 0.5}).minutes(PLAN.rows[0]) == 4
    assert PLAN.minutes(replace(PLAN.rows[1], few=True)) == 60 * 1.75
    assert replace(PLAN, dataset="other").minutes(PLAN.rows[0]) is None
    assert "; 4 rows that nobody has measured come on top" in show_plan(replace(PLAN, dataset="other"))
    assert "nobody has measured" not in show_plan(PLAN)
    assert "or 1.1 h with 2 rows at a time" in show_plan(PLAN, 2)
    assert fit_budget(PLAN, 66 / 60, jobs=2) == PLAN
    assert "; up to 3.0 GiB of memory\n" in show_plan(PLAN)
    peaks = {"cheap": 1.0, "reader": 2.5, "drawn once": 2.0}
    assert "; up to 5.5 GiB of memory\n" in show_plan(replace(PLAN, peaks=peaks), 2)


@pytest.mark.parametrize(
    ("hours", "trials", "seeds", "names"),
    [
        (None, 5, 3, ["cheap", "dear", "reader", "drawn once"]),
        (80 / 60, 2, 3, ["cheap", "dear", "reader", "drawn once"]),
        (60 / 60, 0, 2, ["cheap", "dear", "reader", "drawn once"]),
        (10 / 60, 0, 1, ["cheap", "drawn once"]),  # what reads a row goes with it
        (1 / 60, 0, 1, []),
    ],
)
def test_a_budget_buys_fewer_trials_then_fewer_seeds_then_fewer_rows(
    hours: float | None, trials: int, seeds: int, names: list[str]
) -> None:
    plan = fit_budget(PLAN, hours)
    assert (plan.trials, plan.seeds, [each.name for each in plan.rows]) == (trials, seeds, names)
    assert {each.name for each in plan.rows + plan.left_out} == {each.name for each in PLAN.rows}
    assert all(f"left out, too dear: {each.name}" in show_plan(plan) for each in plan.left_out)


def test_rows_come_after_what_they_need_and_beside_the_reference() -> None:
    names = [each.name for each in choose_rows(ROWS, ("sasrec-finetune",))]
    assert names == ["sasrec-none", "minilm-vectors", "recformer-tuned", "sasrec-finetune"]
    names = [each.name for each in choose_rows(ROWS, ("plm-last-block",))]
    assert names == ["sasrec-none", "plm-states", "plm-vectors", "plm-offset", "plm-last-block"]
    assert [each.name for each in choose_rows(ROWS, ())][:1] == ["popularity"]
    with pytest.raises(ValueError, match="--rows sasrec: there is no such row; there are popularity, "):
        choose_rows(ROWS, ("sasrec",))


def test_rows_are_left_out_where_their_data_are_missing(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny_path)
    rows = [
        row("newest", 1, dated=True),
        row("pretrained", 1, reads=("other",)),
        row("from it", 1, needs=("pretrained",)),
    ]
    assert rows_for("tiny", tmp_path, [*rows, row("plain", 1)]) == (row("plain", 1),)
    write_dataset(tmp_path / "timed", [[1, 2, 3]], 3, [[5, 6, 7]])
    (tmp_path / "other").mkdir()
    assert rows_for("timed", tmp_path, rows) == tuple(rows)


def test_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--datasets nowhere is not prepared"):
        one_table.main(Config(datasets=("nowhere",), data_dir=tmp_path))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_flags_that_exist(name: str) -> None:
    this = ROWS[name]
    if not (ROOT / this.family).is_dir():
        pytest.skip(f"needs {this.family}/")
    if this.script and this.script.endswith(".sh"):
        assert (ROOT / this.script).is_file()
        return
    script = this.script or this.command or f"{this.family}/finetune.py"
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    space = read_search(tuple(SEARCHES[this.search].space)) if this.search else {}
    if this.search:
        search = SEARCHES[this.search]
        assert all(read_start(tuple(start), space) for start in (search.start, *search.start_on.values()))
    generator = np.random.default_rng(0)
    drawn = [part for flag, values in space.items() for part in (f"--{flag}", str(draw(values, generator)))]
    for extra in ("", this.short, this.first, "--train_users 9" * this.few, *this.on.values()):
        found: list[Any] = []
        run_command(found.append, module.Config, [*f"{this.flags} {extra}".split(), *drawn])
        assert found
    assert this.why and (this.script or this.new)
    assert not {flag.removeprefix("--") for flag in this.flags.split()} & space.keys()  # what is searched is not given


def test_rows_side_by_side_wait_for_what_they_need(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        row("dear", 9),
        row("reader", 1, needs=("dear",)),
        row("other", 1),
        row("broken", 1, needs=("reader",)),
    )
    config = Config(datasets=(tiny_path.name,), output_dir=tmp_path, data_dir=tiny_path.parent)
    maker = Maker(config, replace(PLAN, dataset=tiny_path.name, rows=rows), SEARCHES)
    begun, other = [], threading.Event()

    def make(each: Row) -> None:
        begun.append(each.name)
        if each.name == "dear":
            assert other.wait(60)  # which is made beside it
        if each.name == "other":
            other.set()
        if each.name == "broken":
            raise UserError("broken ended with 1")

    monkeypatch.setattr(maker, "make", make)
    with pytest.raises(UserError, match="broken ended with 1"):
        maker.make_all(2)
    assert begun == ["dear", "other", "reader", "broken"]  # what waits keeps no other from beginning
    maker.plan = replace(maker.plan, rows=(*rows, row("last", 1)))
    begun.clear()
    with pytest.raises(UserError, match="broken ended with 1"):
        maker.make_all(1)
    assert begun == ["dear", "reader", "other", "broken"]


def test_without_trials_a_row_gets_the_flags_of_its_first_one(tiny_path: Path, tmp_path: Path) -> None:
    config = Config(datasets=(tiny_path.name,), trials=0, output_dir=tmp_path, data_dir=tiny_path.parent)
    maker = Maker(config, replace(PLAN, dataset=tiny_path.name, trials=0), SEARCHES)
    found = maker.search(ROWS["recformer-frozen"])
    assert found == ["--head_lr", "0.01", "--temp", "0.12", "--item_decay", "0.7"]
    maker.searches = {"head": replace(SEARCHES["head"], start_on={tiny_path.name: ["temp=0.2"]})}
    assert maker.search(ROWS["recformer-frozen"]) == ["--temp", "0.2"]
    assert not any(tmp_path.iterdir())  # and no search is run


@pytest.mark.parametrize("shares", [(0.0,), (0.2, 1.0)])
def test_shares_are_parts_of_the_users(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="--shares must lie between 0 and 1"):
        Config(datasets=("demo",), shares=shares)


POINTS = st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda both: Point("", "", *map(float, both)))


@given(st.lists(POINTS, min_size=1))
def test_the_frontier_is_what_no_point_beats(points: list[Point]) -> None:
    def is_beaten(point: Point) -> bool:
        return any(
            other.cost <= point.cost
            and other.quality >= point.quality
            and (other.cost, other.quality) != (point.cost, point.quality)
            for other in points
        )

    found = [(point.cost, point.quality) for point in frontier(points)]
    assert found == sorted({(point.cost, point.quality) for point in points if not is_beaten(point)})


@pytest.mark.parametrize("points", [[Point("one", "A", 1.0, 0.0)], [Point("same", "A", 2.0, 0.1)] * 40])
def test_a_picture_of_a_frontier_is_drawn_where_names_have_no_room(points: list[Point]) -> None:
    assert draw_frontier([*points, Point("far below", "B", 1.0, -1.0)], "", "cost", "quality").startswith(b"\x89PNG")


def test_a_row_of_each_family_is_made_in_short(
    texts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[str]()

    def run(command: list[str], stdout: Any, **_: Any) -> subprocess.CompletedProcess[bytes]:
        script = Path(command[1]).relative_to(ROOT)
        started.append(script.name)
        if script.suffix == ".sh":
            command = [command[0], str(script.with_name("finetune.py")), *command[2:]]
        forked.run_script(str(script.with_suffix(".py")), *command[2:], output=Path(stdout.name))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)  # in processes that have loaded the libraries
    if missing := sorted({row.family for row in ROWS.values() if not (ROOT / row.family).is_dir()}):
        pytest.skip(f"needs {', '.join(missing)}")
    ranker = () if package_folder(smollm2.PACKAGE) is None else ("llm-ranker",)
    rows = ("text-knn", *ranker, "sasrec-tfidf", "bert4rec-none", "recformer-frozen", "plm-last-block", "hstu")
    data_dir, dataset = texts_path.parent, texts_path.name
    config = Config(datasets=(dataset,), rows=rows, short=True, output_dir=tmp_path, data_dir=data_dir)
    one_table.main(config)
    folder = config.folder(dataset)
    assert folder == tmp_path / "short" / dataset  # what is measured later is not taken from here
    table = pl.read_csv(folder / "one-table.csv")
    made = [*rows[:-2], "plm-offset", *rows[-2:]]  # which another starts from
    assert table["row"].to_list() == ["sasrec-none", *made]
    assert table.filter(pl.col("sample").is_not_null())["row"].to_list() == [*ranker]
    assert (table["left_out difference mean"].is_null() == (table["row"] == "sasrec-none")).all()  # on its users, too
    assert all(table[f"{seen} NDCG@10"].is_between(0, 1).all() for seen in ("kept", "left_out"))
    assert table.filter(row="sasrec-tfidf")["training seconds"].item() > 0 and (table["milliseconds"] > 0).all()
    read = [name for name in made if ROWS[name].needs]  # seconds of TF-IDF or of a language model over all texts
    assert read == table.filter(pl.col("language model's seconds") > 0)["row"].to_list()
    few = [name for name in made if ROWS[name].few]
    assert few == table.filter(pl.col("left_out users 1 NDCG@10").is_not_null())["row"].to_list()[1:]
    for picture in ("training", "serving", "seen", "users"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert all((folder / seen / "comparison.html").is_file() for seen in ("kept", "left_out"))
    page = (folder.parent / "one-table.html").read_text()
    (shown,) = json.loads(page.partition("const results = ")[2].partition(";\n")[0])
    assert [each["row"] for each in shown["rows"]] == ["sasrec-none", *made]
    commands = {each["row"]: each["command"] for each in shown["rows"]}
    block, width = commands["plm-last-block"], "--sasrec_hidden_size 128"
    assert block.endswith("plm-offset-seed1 --seed 1") and width in block and width in commands["plm-offset"]
    assert all(commands[name].startswith("python Baselines/ask.py --dataset") for name in ranker)
    command = commands["sasrec-tfidf"]
    assert "--num_epochs 1" in command and "--lr 0.001" in command and command.endswith("--seed 1")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
    started.clear()
    one_table.main(replace(config, rows=("sasrec-tfidf",)))  # goes on where it ended
    assert started and "finetune.sh" not in started  # nothing that is finished starts a process
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
