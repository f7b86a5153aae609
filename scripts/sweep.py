r"""Search a family's flags, each arm with the same number of trials, and choose on validation alone.

python scripts/sweep.py SASRec --name start --trials 30 --flags "--dataset demo --num_epochs 40" \
  --search lr=1e-4..1e-2:log dropout_rate=0.1..0.6 hidden_units=64,128 --arms "--init_type none" "--init_type finetune"

A study is one SQLite file: the same command resumes it, and several processes of the command split the trials. Every
trial's run folder lies beside it.
"""

import itertools
import json
import logging
import re
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tyro
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from scripts.search_space import draw, read_search, read_start, suggest
from scripts.trainings import Trainings
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import exclusive, is_held, write_json
from seqrec.basics.names import check_family, check_name
from seqrec.basics.paths import ROOT
from seqrec.comparison.results import user_metric

log = logging.getLogger(__name__)
FIRST_TRIALS = 10
"""Trials drawn at random before the search learns from them."""
MAX_FAILURES = 3
"""Maximum number of failed trials in a row."""
POLL_SECONDS = 5.0
"""Seconds between two looks at trials of other processes."""


@dataclass(frozen=True, slots=True)
class Config:
    """Search the flags of a family."""

    family: tyro.conf.Positional[str]
    """Family whose finetune.py is run, such as SASRec."""
    name: str
    """Name of the sweep: everything goes to runs/sweeps/NAME/."""
    search: tuple[str, ...]
    """Flags and their values: lr=1e-4..1e-2:log, num_blocks=1..4, hidden_units=64,128."""
    start: tuple[str, ...] = ()
    """A value of each of these flags for every arm's first trial, flag=value, so that few trials begin at what is
    known; drawn like the others' if not given."""
    trials: int = 20
    """Number of finished trials per arm."""
    arms: tuple[str, ...] = ("",)
    """Flags of each arm, in quotes; all arms get the same search."""
    columns: tuple[str, ...] = ("",)
    """Flags crossed with those of each arm; scripts/sweep_table.py makes a table of arms and columns."""
    flags: str = ""
    """Flags of every trial, in quotes. Recformer exports item vectors: give it a separate --embedding_dir."""
    metric: str = "NDCG@10"
    """Validation metric to maximise."""
    workers: int = 1
    """Number of trials at a time."""
    seed: int = 0
    """Seed of the first ten trials, which are the same for all arms; later ones depend on earlier results."""
    runs_dir: Path = ROOT / "runs"
    """Folder of sweeps/."""

    def __post_init__(self) -> None:
        check_family("the family", self.family, ROOT)
        if self.trials < 1 or self.workers < 1:
            raise UserError("--trials and --workers must be at least 1")
        for name, given in (("arms", self.arms), ("columns", self.columns), ("flags", (self.flags,))):
            if stray := [arm for arm in given if arm.strip() and not arm.strip().startswith("--")]:
                raise UserError(
                    f"--{name} holds {stray[0]!r} where flags such as '--init_type none' are expected, in quotes; or "
                    "the flag before it is no flag of this command"
                )
            if len({slug(arm) for arm in given}) < len(given) or not given:
                raise UserError(f"--{name} names one twice, or none: each is searched as a study of its own")
        user_metric(np.zeros(1, dtype=np.int64), self.metric)  # refuses an unknown one
        check_name("--name", self.name)

    @property
    def folder(self) -> Path:
        """Holds the study and its runs."""
        return self.runs_dir / "sweeps" / self.name


def own_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, the family's flags among them led by a space: they are values here."""
    own = {field.name for field in fields(Config)} | {"help"}

    def is_value(word: str, before: str) -> bool:
        return word.startswith("--") and (
            before in ("--arms", "--columns", "--flags") or word[2:].partition("=")[0].replace("-", "_") not in own
        )

    return [f" {word}" if is_value(word, before) else word for before, word in itertools.pairwise(["", *words])]


def slug(arm: str) -> str:
    """Return an arm's flags as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", arm).strip("-") or "all"


def command_of(config: Config, arm: str, params: dict[str, Any]) -> list[str]:
    """Return the flags of a trial, which are also what repeats it."""
    searched = [text for flag, value in params.items() for text in (f"--{flag}", str(value))]
    return [*shlex.split(config.flags), *shlex.split(arm), *searched, "--best_metric", config.metric]


def run_folder(config: Config, arm: str, number: int) -> Path:
    """Return where a finished trial's run lies."""
    (folder,) = (config.folder / "runs" / config.family).glob(f"*/{slug(arm)}-trial{number}")
    return folder


class TrialFailedError(Exception):
    """A trial's training ended with an error."""


def run_trial(
    config: Config, arm: str, space: dict[str, BaseDistribution], trial: Trial, trainings: Trainings
) -> float:
    """Train one model in a separate process and return its best validation score.

    Raises:
        TrialFailedError: If the run fails; the message ends with the last words that it said.
        SweepEndedError: If the sweep ends before it.
    """
    params = {flag: suggest(trial, flag, distribution) for flag, distribution in space.items()}
    runs, name = config.folder / "runs", f"{slug(arm)}-trial{trial.number}"
    said = config.folder / "logs" / f"{name}.txt"
    said.parent.mkdir(parents=True, exist_ok=True)
    where = ["--runs_dir", str(runs), "--run_name", name, "--overwrite", "--no_progress_bar"]
    command = [sys.executable, str(ROOT / config.family / "finetune.py"), *command_of(config, arm, params)]
    with said.open("wb") as file:
        code = trainings.run([*command, *where], file)
    if code:
        words = [line.strip("│ ") for line in said.read_text(errors="replace").splitlines() if re.search(r"\w", line)]
        told = [line for line in words if "For full helptext" not in line][-2:]
        raise TrialFailedError(f"a trial failed, {said} tells how: {' '.join(told)}")
    (metrics,) = run_folder(config, arm, trial.number).glob("metrics.json")
    score: float = json.loads(metrics.read_text())["valid"][config.metric]
    return score


def open_study(config: Config, arm: str) -> optuna.Study:
    """Create or resume an arm's study.

    Raises:
        UserError: If it was started with other flags.
    """
    settings = {
        "flags": config.flags.strip(),
        "search": list(config.search),
        "metric": config.metric,
        "seed": config.seed,
    } | ({"start": list(config.start)} if config.start else {})
    with exclusive(config.folder / ".lock"):
        study = optuna.create_study(
            storage=f"sqlite:///{config.folder / 'study.db'}",
            sampler=optuna.samplers.TPESampler(n_startup_trials=FIRST_TRIALS, constant_liar=True),
            study_name=f"{config.family} {arm}".strip(),
            direction="maximize",
            load_if_exists=True,
        )
        earlier = study.user_attrs.get("settings")
        if earlier is None:
            study.set_user_attr("settings", settings)
        elif earlier != settings:
            before = {"start": []} | earlier
            told = {"start": []} | settings
            changed = ", ".join(f"{key} was {before[key]}" for key in told if before.get(key) != told[key])
            raise UserError(f"{config.folder} was begun with other flags ({changed}): use those, or another --name")
    return study


class ArmSearch:
    """The search of one arm, which any number of threads and processes work at."""

    def __init__(self, config: Config, arm: str, worker: str, trainings: Trainings) -> None:
        """Open the study.

        Args:
            config: What to search.
            arm: Flags.
            worker: Name of this process in `worker_file`, which it locks while it works.
            trainings: Runs them.
        """
        self.config, self.arm, self.worker, self.trainings = config, arm, worker, trainings
        self.space, self.study = read_search(config.search), open_study(config, arm)
        self.start = read_start(config.start, self.space)
        self.failures = list[str]()

    def finished(self) -> list[FrozenTrial]:
        """Return the first finished trials, as many as were asked for."""
        return self.study.get_trials(states=(TrialState.COMPLETE,))[: self.config.trials]

    def is_running(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is running in a process that is still alive."""
        worker = trial.user_attrs.get("worker")
        return trial.state is TrialState.RUNNING and worker is not None and is_held(worker_file(self.config, worker))

    def is_complete(self) -> bool:
        """Return whether nothing is left to do or to wait for."""
        return len(self.finished()) >= self.config.trials or len(self.failures) >= MAX_FAILURES

    def work(self) -> None:
        """Run trials until enough are done or running, or several in a row have failed."""
        while (trial := self.begin()) is not None:
            score = None  # of a failed trial; an interrupted one is started again
            try:
                score = run_trial(self.config, self.arm, self.space, trial, self.trainings)
                self.failures.clear()
            except TrialFailedError as error:
                log.warning("%s", error)
                self.failures.append(str(error))
            with exclusive(self.config.folder / ".lock"):
                tell(self.study, self.study.tell(trial, score, state=None if score is not None else TrialState.FAIL))

    def begin(self) -> Trial | None:
        """Return a trial to run, if there is any; under the lock, so that no two processes get the same."""
        with exclusive(self.config.folder / ".lock"):
            enough = len(self.finished()) + sum(map(self.is_running, self.study.trials)) >= self.config.trials
            if enough or len(self.failures) >= MAX_FAILURES:
                return None
            trials = [trial for trial in self.study.trials if trial.state.is_finished() or self.is_running(trial)]
            number = min(set(range(len(trials) + 1)) - {trial.user_attrs["draw"] for trial in trials})
            if number == 0 and self.start:
                self.study.enqueue_trial(self.start)
            elif number < FIRST_TRIALS:
                generator = np.random.default_rng((self.config.seed, number))
                drawn = {flag: draw(distribution, generator) for flag, distribution in self.space.items()}
                self.study.enqueue_trial(drawn)
            trial = self.study.ask()
            trial.set_user_attr("draw", number)
            trial.set_user_attr("worker", self.worker)
            return trial

    def best(self) -> dict[str, Any]:
        """Return the trial of the highest validation score, its test, and the command that repeats it.

        Raises:
            UserError: If one trial after another failed.
        """
        if len(self.failures) >= MAX_FAILURES:
            raise UserError(f"{len(self.failures)} trials in a row failed; the last: {self.failures[-1]}")
        done, metric = self.finished(), self.config.metric
        first = max(done, key=lambda trial: trial.value or 0.0)
        flags = command_of(self.config, self.arm, first.params)
        (metrics,) = run_folder(self.config, self.arm, first.number).glob("metrics.json")
        return {
            "arm": self.arm,
            "trials": len(done),
            metric: first.value,
            f"test {metric}": json.loads(metrics.read_text())["test"][metric],
            "command": shlex.join(["bash", f"{self.config.family}/finetune.sh", *flags]),
        }


def worker_file(config: Config, worker: str) -> Path:
    """Return the file that a process locks while it works on a sweep."""
    return config.folder / "workers" / worker


def tell(study: optuna.Study, trial: FrozenTrial) -> None:
    """Log a finished trial."""
    if trial.value is not None:
        log.info(
            "%s: trial %d %.4f, best %.4f, %s", study.study_name, trial.number, trial.value, study.best_value,
            ", ".join(f"{flag} {value}" for flag, value in trial.params.items()),
        )  # fmt: skip


def work_at(searches: Sequence[ArmSearch], workers: int, trainings: Trainings) -> None:
    """Run the remaining trials, `workers` at a time, until all are done, here or in other processes."""

    def work(_: int) -> None:
        for search in searches:
            search.work()

    with ThreadPoolExecutor(workers) as pool, trainings.ending():
        list(pool.map(work, range(workers)))
    with trainings.ending():
        while not all(search.is_complete() for search in searches):  # another process runs it, or has just died
            time.sleep(POLL_SECONDS)
            work(0)


def main(config: Config) -> None:
    """Search every arm, and print each one's best flags as a command."""
    read_start(config.start, read_search(config.search))
    config.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows, columns = ([arm.strip() for arm in given] for given in (config.arms, config.columns))
    arms = [f"{row} {column}".strip() for row in rows for column in columns]
    worker = uuid.uuid4().hex
    trainings = Trainings()
    with exclusive(worker_file(config, worker)):
        searches = [ArmSearch(config, arm, worker, trainings) for arm in arms]
        work_at(searches, config.workers, trainings)
    best = [search.best() for search in searches]
    for found in best:
        print(
            f"{found['arm'] or config.family}: validation {config.metric} {found[config.metric]:.4f}, best of ", end=""
        )
        print(f"{found['trials']} trials\n  {found['command']}")
    about = {"family": config.family, "metric": config.metric, "search": config.search, "seed": config.seed}
    write_json(config.folder / "best.json", about | {"rows": rows, "columns": columns, "arms": best})
    print(config.folder / "best.json")


if __name__ == "__main__":
    run_command(main, Config, own_words(sys.argv[1:]))
