"""The flags of alignment with a large language model, and of encoding texts with it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from LSVCR.options import ModelOptions
from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT
from seqrec.nn.optimization import Schedule
from seqrec.text.options import LoraOptions
from seqrec.training.options import FitConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMOptions(LoraOptions):
    """The large language model, and what of it learns."""

    model_name_or_path: str = "smollm2"
    """A decoder: smollm2, a folder, a .gguf file, or a name on the Hugging Face hub. Llama, Mistral, Qwen and OPT are
    read without padding."""
    trust_remote_code: bool = False
    """Run the code that a model brings along, such as ChatGLM3's: it can do whatever you can, so read it first."""
    llm_num_blocks: int | None = None
    """Use the language model's first blocks alone, so many of them; by default all."""
    llm_last_n_unfreeze: int = -1
    """Last blocks that learn: -1 all of them. The embeddings never do."""
    lora_r: int = 8
    """Rank of LoRA's low-rank updates; 0 trains the weights themselves."""
    lora_alpha: int = 32
    """Alpha of LoRA: an update is scaled by alpha / r."""
    lora_targets: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--lora_target_modules"])] = ()
    """Names of the projections that get a low-rank update; by default all of the blocks that learn."""
    gradient_checkpointing: bool = True
    """Keep of the blocks that learn their inputs alone, and compute them again for the gradients: less memory, more
    time."""

    def __post_init__(self) -> None:
        LoraOptions.__post_init__(self)
        require_at_least(-1, self, "llm_last_n_unfreeze")
        require_at_least(1, self, "llm_num_blocks")
        if self.lora_r and not self.llm_last_n_unfreeze:
            raise UserError("--lora_r updates the blocks of --llm_last_n_unfreeze: give -1 for all, or a number")
        if self.lora_targets and not self.lora_r:
            raise UserError("--lora_targets is for --lora_r R: give the rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignConfig:
    """One alignment: data, language model, sequential recommender, views, losses and training."""

    dataset: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_code"])] = None
    """Name of a prepared dataset with comments in data/, such as comments-demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    llm: LLMOptions = field(default_factory=LLMOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    max_his_len: Annotated[int, tyro.conf.arg(aliases=["--max_phis_len", "--max_chis_len"])] = 20
    """Latest videos, and latest entries of comments, that both models read; they get places drawn of all --maxlen."""
    prompts: str = "en"
    """Language of the prompts, en or zh, or a file like LSVCR/prompts/en.json."""
    tokenized_len: int = 256
    """Maximum number of tokens of a title or comment."""
    max_source_length: int = 3840
    """Maximum number of tokens of a prompt; the oldest lines of the histories are dropped."""
    max_target_length: int = 256
    """Maximum number of tokens of an answer."""
    train_num: int = 556_400
    """Maximum number of cases of each task, drawn by the seed where there are more."""
    phis_aug_p: float = 0.5
    """Share of the histories of videos that the two models may read with different popular comments."""
    chis_aug_p: float = 0.5
    """Share of the histories of comments that the two models may read with different comments, some of them others'."""
    inter_aug_p: float = 0.3
    """Share of such a history's entries in which they do."""
    temperature: float = 0.07
    """Cosines are divided by it."""
    lm_loss_weight: float = 1.0
    """Weight of the language model's own loss, that of the answers' tokens."""
    rec_loss_weight: float = 1.0
    """Weight of the loss that tells a user's target from those of the batch."""
    pref_loss_weight: float = 0.5
    """Weight of the loss that brings together what both models make of a user."""
    bhv_loss_weight: float = 0.5
    """Weight of the loss that brings the language model nearer to the history that the task is about."""
    batch_size: int = 16
    """Cases per training batch, over all processes; they are one another's negatives."""
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning_rate"])] = 3e-4
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all weights but biases and norms."""
    schedule: Schedule = "linear"
    """Learning rate schedule: constant, or linear or cosine (to zero at --num_epochs)."""
    warmup_steps: Annotated[float, tyro.conf.arg(aliases=["--warmup_ratio"])] = 0.03
    """Warm-up steps of the learning rate, or, below 1, their share of all steps."""
    save_steps: int = 1000
    """Batches between checkpoints, from which --resume goes on."""
    training: FitConfig = field(default_factory=lambda: FitConfig(num_epochs=1))

    def __post_init__(self) -> None:
        require_above(0, self, "temperature", "lr")
        weights = [name for name in self.__dataclass_fields__ if name.endswith("_loss_weight")]
        require_at_least(0, self, "weight_decay", "warmup_steps", "phis_aug_p", "chis_aug_p", "inter_aug_p", *weights)
        require_at_most(1, self, "phis_aug_p", "chis_aug_p", "inter_aug_p")
        require_at_least(1, self, "max_his_len", "tokenized_len", "max_source_length", "max_target_length")
        require_at_least(1, self, "train_num", "save_steps")
        require_at_least(2, self, "batch_size")
        require_at_most(100_000, self, "tokenized_len", "max_source_length", "max_target_length")
        if not any(getattr(self, name) for name in weights):
            raise UserError(f"all of {', '.join('--' + name for name in weights)} are 0: nothing would be learned")
        if self.max_his_len > self.model.maxlen:
            raise UserError(
                f"--max_his_len {self.max_his_len} is more than --maxlen {self.model.maxlen}, the places there are: "
                "give less"
            )

    @property
    def reading(self) -> ModelOptions:
        """The architecture, of a model that reads histories of `max_his_len`."""
        return replace(self.model, maxlen=self.max_his_len)


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """What to encode, with what, and under which name."""

    run: Path | None = None
    """Folder of a finished run of align.py; by default the language model is used as it is."""
    model_name_or_path: str = "smollm2"
    """Without --run, a decoder: smollm2, a folder, a .gguf file, or a name on the Hugging Face hub."""
    trust_remote_code: bool = False
    """Without --run, run the code that the model brings along: read it first."""
    llm_num_blocks: int | None = None
    """Without --run, use its first blocks alone, so many of them; by default all."""
    init_type: str | None = None
    """Name of the vectors, embedding/DATASET/NAME.npy and embedding/DATASET-comments/NAME.npy: aligned, or that of the
    language model."""
    full: bool = False
    """With --run, write the language model's own vectors, too, as NAME-full; finetune.py then trains the map."""
    dataset: str | None = None
    """Name of a prepared dataset with comments; by default the run's."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    tokenized_len: int | None = None
    """Maximum number of tokens of a text; by default the run's, or 256."""
    max_tokens: int = 8192
    """Tokens per batch."""
    part_items: int = 16384
    """Texts that are encoded, and kept in memory, at a time."""
    embedding_dir: Path = ROOT / "embedding"
    """Where text vectors go."""
    overwrite: bool = False
    """Replace vectors of that name that other weights or options made."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "max_tokens", "part_items", "tokenized_len", "llm_num_blocks")
        if self.run is not None and (self.llm_num_blocks is not None or self.trust_remote_code):
            raise UserError("--run knows its --llm_num_blocks and --trust_remote_code: drop the flags")
        if self.init_type is not None:
            check_name("--init_type", self.init_type)
        if self.full and self.run is None:
            raise UserError("--full is for --run RUN: without it the vectors are the language model's own anyway")
