"""Searches: what is drawn, that all arms get the same, going on, and trials that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scripts import sweep, sweep_table
from scripts.search_space import draw, read_search, read_start
from scripts.sweep import ArmSearch, Config, main, own_words
from scripts.trainings import Trainings
from seqrec.basics.command import run_command
from seqrec.basics.formatting import number
from tests import forked

FAMILY = """
import json, sys
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if flags["--kind"] == "broken":
    sys.exit("finetune.py: no such kind")
folder = Path(flags["--runs_dir"]) / "Toy" / "demo" / flags["--run_name"]
folder.mkdir(parents=True)
score = 1 - abs(float(flags["--lr"]) - 0.01) + (0.5 if flags["--kind"] == "good" else 0)
(folder / "metrics.json").write_text(json.dumps({"valid": {"NDCG@10": score}, "test": {"NDCG@10": 1 - score}}))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one family whose score is known."""
    (tmp_path / "Toy").mkdir()
    (tmp_path / "Toy/finetune.py").write_text(FAMILY)
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    return tmp_path


def config(toy: Path, **changes: object) -> Config:
    fields: dict[str, object] = {
        "family": "Toy",
        "name": "one",
        "search": ("lr=1e-3..1e-1:log",),
        "runs_dir": toy / "runs",
    }
    return Config(**(fields | {"arms": ("--kind good", "--kind plain"), "trials": 3} | changes))  # type: ignore[arg-type]


def trials(toy: Path) -> list[str]:
    return sorted(path.parent.name for path in (toy / "runs/sweeps/one/runs").rglob("metrics.json"))


def test_what_is_drawn() -> None:
    assert read_search(("lr=1e-4..0.1:log", "num_blocks=1..4", "hidden_units=64,128")) == {
        "lr": FloatDistribution(1e-4, 0.1, log=True),
        "num_blocks": IntDistribution(1, 4),
        "hidden_units": CategoricalDistribution(["64", "128"]),
    }
    for entry in ("lr", "lr=2..1.5", "=1..2", "lr=a..b", "lr="):
        with pytest.raises(ValueError, match=r"expected flag=low\.\.high"):
            read_search((entry,))


def test_the_first_trial_may_be_given(toy: Path) -> None:
    main(config(toy, start=("lr=0.01",), trials=2))
    best = json.loads((toy / "runs/sweeps/one/best.json").read_text())["arms"]
    assert ["--lr 0.01 " in f"{arm['command']} " for arm in best] == [True, True]  # the best there is
    with pytest.raises(ValueError, match=r"begun with other flags \(start was \['lr=0.01'\]\)"):
        main(config(toy))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("n=1", "--start has n: expected one value of each of lr, n, kind"),
        ("lr=2 n=1 kind=a", "--start lr=2: expected a number from 0.001 to 0.1"),
        ("lr=x n=1 kind=a", "--start lr=x: expected a number"),
        ("lr=0.01 n=1.5 kind=a", "--start n=1.5: expected a number from 1 to 4"),
        ("lr=0.01 n=1 kind=c", "--start kind=c: expected one of a, b"),
    ],
)
def test_a_first_trial_outside_the_search_is_refused(given: str, message: str) -> None:
    space = read_search(("lr=1e-3..1e-1:log", "n=1..4", "kind=a,b"))
    assert read_start(("lr=0.01", "n=4", "kind=b"), space) == {"lr": 0.01, "n": 4, "kind": "b"}
    with pytest.raises(ValueError, match=message):
        read_start(tuple(given.split()), space)


def test_all_arms_get_the_same_and_the_best_is_chosen_on_validation(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(config(toy))
    assert trials(toy) == [f"kind-{arm}-trial{number}" for arm in ("good", "plain") for number in range(3)]
    best = json.loads((toy / "runs/sweeps/one/best.json").read_text())["arms"]
    assert [arm["trials"] for arm in best] == [3, 3]
    # The search of both arms begins with the same draws, and the arms differ by .5 in what is drawn.
    assert best[0]["NDCG@10"] == pytest.approx(best[1]["NDCG@10"] + 0.5)
    scores = [
        json.loads(path.read_text())["valid"]["NDCG@10"]
        for path in (toy / "runs/sweeps/one/runs").rglob("kind-good-*/metrics.json")
    ]
    assert best[0]["NDCG@10"] == max(scores)
    assert "bash Toy/finetune.sh --kind good --lr 0.0" in capsys.readouterr().out


def test_the_same_command_goes_on(toy: Path) -> None:
    main(config(toy, trials=1))
    main(config(toy, trials=3))
    assert len(trials(toy)) == 6
    main(config(toy, trials=3))
    assert len(trials(toy)) == 6
    scores = {path.read_text() for path in (toy / "runs/sweeps/one/runs").rglob("kind-good-*/metrics.json")}
    assert len(scores) == 3  # nothing is drawn twice
    with pytest.raises(ValueError, match=r"begun with other flags \(seed was 0\): use those, or another --name"):
        main(config(toy, seed=1))


def test_arms_and_columns_make_a_table(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(config(toy, columns=("--other 1", "--other 2"), workers=3))
    assert len(trials(toy)) == 2 * 2 * 3
    file = toy / "runs/sweeps/one/best.json"
    best = json.loads(file.read_text())
    assert [arm["arm"] for arm in best["arms"]] == [
        f"--kind {k} --other {o}" for k in ("good", "plain") for o in (1, 2)
    ]
    capsys.readouterr()
    sweep_table.main(sweep_table.Config((file, file), rows=("Good", "Plain"), titles=("a", "b")))
    said = capsys.readouterr().out.splitlines()
    scores = [arm["NDCG@10"] for arm in best["arms"]]
    for line, (name, at) in zip(said[2:4], (("Good", 0), ("Plain", 2)), strict=True):
        expected = [f"({number(score)})" for score in scores[at : at + 2]]
        assert [line.split()[i] for i in (0, 2, 4)] == [name, *expected]
        assert line.split()[1] == number(1 - scores[at])
    assert (toy / "runs/sweeps/one/best.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"--rows gives 1 names for 2"):
        sweep_table.main(sweep_table.Config((file,), rows=("Good",)))
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"is no best.json of scripts/sweep.py"):
        sweep_table.main(sweep_table.Config((file,)))


def test_flags_of_the_family_are_values_on_the_command_line(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Toy", "--name", "one", "--search", "lr=1e-3..1e-1:log", "--trials", "1", "--runs-dir", str(toy / "runs")]
    words += ["--flags", "--other 1", "--arms", "--kind good", "--kind=plain", "--columns", "", "--relative_time"]
    read: list[Config] = []
    run_command(read.append, Config, own_words([*words, "--seed=3"]))
    assert read[0].runs_dir == toy / "runs"
    assert read[0].seed == 3
    run_command(read.append, Config, own_words([*words[:7], "--flags", "--seed=4"]))
    assert (read[1].flags.strip(), read[1].seed) == ("--seed=4", 0)
    run_command(main, Config, own_words([*words[:-4], "--kind plain", "--columns", "--and 1"]))
    best = json.loads((toy / "runs/sweeps/one/best.json").read_text())
    assert best["rows"] == ["--kind good", "--kind plain"]
    assert best["columns"] == ["--and 1"]
    assert "bash Toy/finetune.sh --other 1 --kind plain --and 1 --lr 0.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_command(main, Config, own_words([*words[:7], "--trails", "1"]))


def test_trials_at_a_time(toy: Path) -> None:
    main(config(toy, workers=2, trials=4, arms=("--kind good",)))
    assert len(trials(toy)) == 4
    best = json.loads((toy / "runs/sweeps/one/best.json").read_text())["arms"]
    assert best[0]["trials"] == 4


def test_a_trial_of_another_process_is_left_to_it_and_begun_anew_when_that_is_gone(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(toy, trials=2, arms=("--kind good",))
    held = sweep.worker_file(settings, "other")
    held.parent.mkdir(parents=True)
    hold = "import fcntl, sys, time; file = open(sys.argv[1], 'wb'); fcntl.flock(file, fcntl.LOCK_EX); print('held'); "
    command = [sys.executable, "-uc", hold + "time.sleep(600)", str(held)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert ArmSearch(settings, "--kind good", "other", Trainings()).begin() is not None
        waited = []

        def wait(seconds: float) -> None:
            waited.append((seconds, trials(toy)))  # the other draw is done by now
            other.kill()
            other.wait()

        monkeypatch.setattr(time, "sleep", wait)
        main(settings)
    assert waited == [(sweep.POLL_SECONDS, ["kind-good-trial1"])]
    assert trials(toy) == ["kind-good-trial1", "kind-good-trial2"]
    learning_rate = read_search(settings.search)["lr"]
    drawn = [draw(learning_rate, np.random.default_rng((settings.seed, number))) for number in (0, 1)]
    done = {
        trial.number: trial.params["lr"] for trial in ArmSearch(settings, "--kind good", "me", Trainings()).finished()
    }
    assert done == {2: drawn[0], 1: drawn[1]}
    assert [path.name for path in held.parent.iterdir()] == ["other"]


def test_a_trial_that_fails_ends_the_search_with_its_last_words(toy: Path) -> None:
    with pytest.raises(ValueError, match=r"3 trials in a row failed.*trial2.txt tells how: finetune.py: no such kind"):
        main(config(toy, arms=("--kind broken",)))


def test_a_trial_that_fails_is_made_up_for(toy: Path) -> None:
    family = (toy / "Toy/finetune.py").read_text()
    (toy / "Toy/finetune.py").write_text(
        family.replace('if flags["--kind"]', 'if float(flags["--lr"]) > 0.05 or flags["--kind"]')
    )
    main(config(toy, trials=4, arms=("--kind good",)))
    assert len(trials(toy)) == 4
    assert len(list((toy / "runs/sweeps/one/logs").iterdir())) == 4 + 3


def test_what_cannot_be_searched(toy: Path) -> None:
    with pytest.raises(ValueError, match="the family must be one of Toy, got 'Toys'"):
        config(toy, family="Toys")
    with pytest.raises(ValueError, match="names one twice"):
        config(toy, arms=("--kind good", "--kind good"))
    with pytest.raises(ValueError, match="unknown metric 'HR@10'"):
        config(toy, metric="HR@10")
    with pytest.raises(ValueError, match="--arms holds '2' where flags such as"):
        config(toy, arms=("--kind good", "--worker", "2"))
    with pytest.raises(ValueError, match="--name must be a plain name"):
        config(toy, name="a/b")


def start_sweep(toy: Path, words: list[str]) -> None:
    """Start a sweep of a family that trains until it is told to end, and then writes that it was."""
    (toy / "Toy/finetune.py").write_text(
        "import signal, sys, time\n"
        "def end(*_):\n    open(sys.argv[0] + '.ended', 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nopen(sys.argv[0] + '.began', 'w').close()\ntime.sleep(600)"
    )
    vars(sweep)["ROOT"] = toy
    run_command(main, Config, words)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_its_trainings_end_with_it(toy: Path, sent: signal.Signals, status: int) -> None:
    words = ["Toy", "--name", "one", "--search", "lr=1..2", "--runs_dir", str(toy / "runs"), "--trials", "1"]
    process = forked.start(start_sweep, toy, words, output=toy / "said")
    began, ended = toy / "Toy/finetune.py.began", toy / "Toy/finetune.py.ended"
    while not began.exists():
        assert process.is_alive(), (toy / "said").read_text()
        time.sleep(0.01)
    os.kill(process.pid or 0, sent)
    process.join(60)
    assert process.exitcode == status
    assert ended.exists()
    said = (toy / "said").read_text()
    assert said.splitlines()[-1] == f"stopped by {sent.name}"
    assert "Traceback" not in said
