r"""Search a family's flags, each arm with the same number of trials, and choose on validation alone.

python scripts/sweep.py SASRec --name start --trials 30 --flags "--dataset demo --num_epochs 40" \
  --search lr=1e-4..1e-2:log dropout_rate=0.1..0.6 hidden_units=64,128 --arms "--init_type none" "--init_type finetune"

A study is one SQLite file, so the same command goes on where it was stopped, and run several times at once it shares
the trials out. Every trial's run folder lies beside it.
"""

import json
import logging
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import optuna
import tyro
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import MaxTrialsCallback
from optuna.trial import Trial, TrialState

from seqrec.command import run_command
from seqrec.dataset import ROOT
from seqrec.files import write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What to search, and how long."""

    family: tyro.conf.Positional[str]
    """Folder whose finetune.py is run, such as SASRec."""
    name: str
    """Of the sweep: everything goes to runs/sweeps/NAME/."""
    search: tuple[str, ...]
    """Flags and where to look: lr=1e-4..1e-2:log, num_blocks=1..4, hidden_units=64,128."""
    trials: int = 20
    """Finished trials of each arm."""
    arms: tuple[str, ...] = ("",)
    """Flags of each arm, in quotes; all arms are searched alike."""
    flags: str = ""
    """Flags of every trial, in quotes."""
    metric: str = "NDCG@10"
    """Validation metric to raise."""
    workers: int = 1
    """Trials at a time."""
    seed: int = 0
    """Of the search; the first trials of all arms are the same."""
    runs_dir: Path = ROOT / "runs"
    """Holds sweeps/."""

    def __post_init__(self) -> None:
        if not (ROOT / self.family / "finetune.py").is_file():
            known = sorted(path.parent.name for path in ROOT.glob("*/finetune.py"))
            raise ValueError(f"no family {self.family!r}: there are {', '.join(known)}")
        if self.trials < 1 or self.workers < 1 or not self.arms:
            raise ValueError("--trials and --workers must be at least 1, and there must be an arm")
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"--name {self.name!r} becomes a folder: use letters, digits, dots and dashes")

    @property
    def folder(self) -> Path:
        """Holds the study and its runs."""
        return self.runs_dir / "sweeps" / self.name


def read_search(entries: tuple[str, ...]) -> dict[str, BaseDistribution]:
    """Return where to look for each flag.

    Raises:
        ValueError: If an entry is no `flag=low..high`, `flag=low..high:log` or `flag=a,b,c`.
    """
    space: dict[str, BaseDistribution] = {}
    for entry in entries:
        flag, _, values = entry.partition("=")
        low, is_range, high = values.removesuffix(":log").partition("..")
        try:
            if not flag or not values:
                raise ValueError("nothing to search")
            if not is_range:
                space[flag] = CategoricalDistribution(values.split(","))
            elif re.fullmatch(r"\d+", low) and re.fullmatch(r"\d+", high):
                space[flag] = IntDistribution(int(low), int(high), log=values.endswith(":log"))
            else:
                space[flag] = FloatDistribution(float(low), float(high), log=values.endswith(":log"))
        except ValueError as error:
            raise ValueError(
                f"--search {entry!r} ({error}): expected flag=low..high, flag=low..high:log or flag=a,b,c"
            ) from error
    return space


def suggest(trial: Trial, flag: str, distribution: BaseDistribution) -> Any:
    """Return a value to try."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(flag, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(flag, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(flag, distribution.choices)


def command_of(config: Config, arm: str, params: dict[str, Any]) -> list[str]:
    """Return the flags of a trial, which are also what repeats it."""
    searched = [text for flag, value in params.items() for text in (f"--{flag}", str(value))]
    return [*shlex.split(config.flags), *shlex.split(arm), *searched]


def run_trial(config: Config, arm: int, space: dict[str, BaseDistribution], trial: Trial) -> float:
    """Train one model in a process of its own and return its best validation score.

    Raises:
        ValueError: If the run fails; the message ends with the last line that it said.
    """
    params = {flag: suggest(trial, flag, distribution) for flag, distribution in space.items()}
    runs, name = config.folder / "runs", f"arm{arm}-trial{trial.number}"
    said = config.folder / "logs" / f"{name}.txt"
    said.parent.mkdir(parents=True, exist_ok=True)
    where = ["--runs_dir", str(runs), "--run_name", name, "--overwrite", "--no_progress_bar"]
    command = [sys.executable, str(ROOT / config.family / "finetune.py"), *command_of(config, config.arms[arm], params)]
    with said.open("wb") as file:
        code = subprocess.run([*command, *where], stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = said.read_text(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"a trial failed, {said} tells how: {' '.join(last)}")
    (metrics,) = (runs / config.family).glob(f"*/{name}/metrics.json")
    score: float = json.loads(metrics.read_text())["valid"][config.metric]
    return score


def search_arm(config: Config, arm: int) -> optuna.Study:
    """Return an arm's study with all its trials done."""
    space = read_search(config.search)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{config.folder / 'study.db'}", heartbeat_interval=30, grace_period=120
    )
    study = optuna.create_study(
        storage=storage,
        study_name=f"{config.family} {config.arms[arm]}".strip(),
        direction="maximize",
        load_if_exists=True,
    )
    # What goes on, here or in another process, is not to draw again what was drawn first.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    enough = MaxTrialsCallback(config.trials, states=(TrialState.COMPLETE,))
    if len(study.get_trials(states=(TrialState.COMPLETE,))) < config.trials:
        study.optimize(
            lambda trial: run_trial(config, arm, space, trial),
            callbacks=[enough, tell],
            n_jobs=config.workers,
        )
    return study


def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Log a finished trial."""
    if trial.value is not None:
        log.info(
            "%s: trial %d %.4f, best %.4f, %s", study.study_name, trial.number, trial.value, study.best_value,
            ", ".join(f"{flag} {value}" for flag, value in trial.params.items()),
        )  # fmt: skip


def main(config: Config) -> None:
    """Search every arm, and print each one's best flags as a command."""
    read_search(config.search)
    config.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best = []
    for arm, flags in enumerate(config.arms):
        study = search_arm(config, arm)
        done = study.get_trials(states=(TrialState.COMPLETE,))
        command = shlex.join(["bash", f"{config.family}/finetune.sh", *command_of(config, flags, study.best_params)])
        best.append({"arm": flags, "trials": len(done), config.metric: study.best_value, "command": command})
        print(
            f"{flags or config.family}: validation {config.metric} {study.best_value:.4f}, best of {len(done)} trials"
        )
        print(f"  {command}")
    write_json(config.folder / "best.json", {"search": config.search, "seed": config.seed, "arms": best})
    print(config.folder / "best.json")


if __name__ == "__main__":
    run_command(main, Config)
