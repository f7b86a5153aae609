"""The flags of language models that rank candidates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import EvaluationProtocol
from seqrec.training.options import TrainingConfig

Shortlist = Literal["popularity", "recency", "favourites", "item-knn", "text-knn", "rules"]
SAMPLE = EvaluationProtocol(sample_size=19)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """A server that answers, in the place of a model that is loaded here."""

    server: str | None = None
    """Address of an OpenAI-compatible server, such as https://api.openai.com/v1, or of Ollama,
    http://localhost:11434/v1; the environment's OPENAI_API_KEY is sent to it."""
    server_parallel: int = 4
    """Requests that are under way at a time."""
    requests_per_minute: float = 600
    """Greatest number of requests a minute."""
    timeout: float = 60
    """Seconds after which a request is given up and sent again."""
    retries: int = 5
    """How often a request is sent again, each time after twice as long a pause."""
    price_in: float = 0
    """Price of a million tokens that are sent, for the cost that is reported."""
    price_out: float = 0
    """Price of a million tokens that are answered."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "server_parallel")
        require_at_least(0, self, "retries", "price_in", "price_out")
        require_above(0, self, "requests_per_minute", "timeout")
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise UserError(f"--server must begin with http:// or https://, got {self.server}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One language model's test on a sample of users."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    model_name_or_path: str = "smollm2"
    """Decoder: smollm2, a folder, a .gguf file, or a name on the Hugging Face hub; with --server the name that it has
    there."""
    way: Literal["likelihood", "list"] = "likelihood"
    """likelihood: how probable a title is after the history's; list: the model is shown all candidates and names them,
    the best first."""
    likelihood: Literal["gain", "mean", "sum"] = "gain"
    """Logarithm that likelihood ranks by: of a title's tokens in the mean, in sum, or the mean's gain over what it is
    without a history."""
    shortlist: Shortlist | None = None
    """Baseline whose best items the model ranks anew, the others staying behind them: a ranking of all items, with
    --sample_size -1. By default the candidates are the target and others drawn at random."""
    shortlist_size: int = 20
    """Of --shortlist, the number of items."""
    max_his_len: int = 10
    """Latest items of a history that the model reads."""
    max_title_tokens: int = 32
    """Greatest number of a title's tokens."""
    test_users: int = 200
    """Users that are drawn from the test; 0 takes all."""
    seed: int = 42
    """Seed of that draw, and of the order in which candidates are listed."""
    runs_dir: Annotated[Path, tyro.conf.arg(aliases=["--output_dir", "--experiment_dir"])] = ROOT / "runs"
    """Folder of the run folders."""
    run_name: str | None = None
    """Name of the run folder; by default of the way and the model."""
    resume: bool = False
    """Leave a finished run as it is."""
    overwrite: bool = False
    """Delete an earlier run of that name first."""
    progress_bar: bool = True
    """Show a progress bar on a terminal."""
    servers: ServerOptions = field(default_factory=ServerOptions)
    protocol: EvaluationProtocol = field(default=SAMPLE)

    def __post_init__(self) -> None:
        require_at_least(1, self, "max_his_len", "max_title_tokens", "shortlist_size")
        require_at_least(0, self, "test_users")
        if self.shortlist is not None and self.protocol.other is None:
            raise UserError("--shortlist ranks all items: give --sample_size -1, and no --candidates or --fresh_days")
        if self.shortlist is None and self.protocol.sample_size < 1 and self.protocol.candidates is None:
            raise UserError(
                "a language model ranks a few candidates: give --sample_size K, --candidates FILE, or --shortlist"
            )
        if self.servers.server is not None and self.way == "likelihood":
            raise UserError("a --server says what it answers, not how likely titles are: give --way list")

    @property
    def training(self) -> TrainingConfig:
        """The training options that a run folder needs."""
        model = self.model_name_or_path.strip("/").rpartition("/")[2]
        return TrainingConfig(
            accelerator="cpu",
            runs_dir=self.runs_dir,
            run_name=self.run_name or f"{self.way}-{model}" + (f"-of-{self.shortlist}" if self.shortlist else ""),
            resume=self.resume,
            overwrite=self.overwrite,
            progress_bar=self.progress_bar,
        )
