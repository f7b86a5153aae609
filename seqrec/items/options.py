"""The flags of items that a language model reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqrec.basics.checks import require_above, require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.text.options import LoraOptions, TextPooling

InputType = Literal["text", "id"]
"""Items as texts, or as ids with a vector each."""
Head = Literal["untied", "tied"]
"""What scores are products with: vectors for every item of their own and a bias, or the items' own vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOptions(LoraOptions):
    """From an item's text to its vector."""

    plm_name: str = "minilm"
    """Language model: minilm, smollm2, a folder, or a name on the Hugging Face hub (OPT, BERT, RoBERTa, ModernBERT,
    Llama, Mistral, Qwen)."""
    tokenized_len: int = 30
    """Maximum number of tokens of an item's text, special ones included."""
    item_prompt: str = ""
    """What a language model reads before every item's text."""
    name_attributes: bool = False
    """Put an attribute's name before its text, as in `title: ...`."""
    pooling_method: TextPooling | None = None
    """A text's vector: mean, last, mean_last (both, fused), cls (first token) or pooler (of a BERT). By default what a
    sentence encoder was trained for, cls for other encoders, mean for decoders."""
    plm_last_n_unfreeze: int = 0
    """Last blocks to train: 0 trains none, -1 all blocks and the embeddings."""
    plm_gradient_checkpointing: bool = False
    """Keep of the trained blocks their inputs alone, and compute them again for the gradients: less memory, more
    time."""
    plm_lr: float = 1e-5
    """Learning rate of the language model's own weights."""
    plm_lr_layer_decay: float = 0.8
    """Factor of --plm_lr from one block to the one below; the last has one factor, too."""
    plm_weight_decay: float = 0.0
    """Decoupled weight decay of the language model's weights but biases and norms."""
    lora_targets: tuple[str, ...] = ()
    """Names of the projections that get a low-rank update; by default all of the trained blocks."""
    projection_n_layers: int | None = None
    """Widths from the language model to the recommender, both counted; two more than --projection_inner_sizes. Need
    not be given."""
    projection_inner_sizes: tuple[int, ...] = ()
    """Inner widths of the projection; by default it is one linear map."""
    projection_activation: Literal["none", "gelu"] = "none"
    """Between the maps of the projection."""

    def __post_init__(self) -> None:
        LoraOptions.__post_init__(self)
        require_at_least(1, self, "tokenized_len")
        require_at_most(100_000, self, "tokenized_len")
        require_at_least(-1, self, "plm_last_n_unfreeze")
        require_above(0, self, "plm_lr", "plm_lr_layer_decay")
        require_at_least(0, self, "plm_weight_decay")
        if any(not 1 <= size <= 100_000 for size in self.projection_inner_sizes):
            raise UserError(f"--projection_inner_sizes must be 1 to 100,000 each, got {self.projection_inner_sizes}")
        inner = len(self.projection_inner_sizes)
        if self.projection_n_layers not in (None, inner + 1, inner + 2):
            raise UserError(
                f"--projection_n_layers {self.projection_n_layers} counts both ends: with {inner} inner sizes it is "
                f"{inner + 2}"
            )
        if self.lora_r and not self.plm_last_n_unfreeze:
            raise UserError("--lora_r updates the blocks of --plm_last_n_unfreeze: give -1 for all, or a number")
        if self.lora_targets and not self.lora_r:
            raise UserError("--lora_targets is for --lora_r R: give the rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """Vectors that are learned beside a text."""

    use_prompt: bool = False
    """Learn a prompt: vectors that every block, or the text, has beside the text's own."""
    prompt_projection: bool = True
    """Make the prefix and suffix by a small network, which is easier to train than a table of them."""
    prompt_hidden_size: int = 128
    """Width of that network."""
    pre_seq_len: int | None = None
    """Keys and values before the text, in every block; 20 if not given."""
    post_seq_len: int | None = None
    """Keys and values after the text, read by the last query alone; 10 if not given, where there is a last query."""
    last_query_len: int | None = None
    """Tokens after the text, of which the last is what --pooling_method last reads; 1 if not given, where it is read.
    For decoders. Without prefix and suffix they enter before the first block that is trained."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "prompt_hidden_size")
        require_at_least(0, self, "pre_seq_len", "post_seq_len", "last_query_len")
        require_at_most(10_000, self, "prompt_hidden_size", "pre_seq_len", "post_seq_len", "last_query_len")
        given = [name for name in ("pre_seq_len", "post_seq_len", "last_query_len") if getattr(self, name) is not None]
        if given and not self.use_prompt:
            raise UserError(f"--{given[0]} is for --use_prompt: give it too")

    @property
    def lengths(self) -> tuple[int, int, int]:
        """(P, Q, K), once `resolve` has set them."""
        return self.pre_seq_len or 0, self.post_seq_len or 0, self.last_query_len or 0

    @property
    def is_queries(self) -> bool:
        """Whether it is a last query alone, which the blocks that are trained read, and those below them do not."""
        return self.use_prompt and self.pre_seq_len == 0 and self.post_seq_len == 0

    def resolve(self, pooling: TextPooling, is_causal: bool) -> "PromptOptions":
        """Return the options with all lengths set, for a kind of model.

        Raises:
            UserError: If a part would be read by nothing.
        """
        reads_query = pooling in ("last", "mean_last") and (is_causal or self.is_queries)
        if not is_causal and (self.post_seq_len or (self.last_query_len and not self.is_queries)):
            raise UserError(
                "--post_seq_len and --last_query_len are for decoders, where only a last token sees all: this "
                "language model is an encoder, leave them out"
            )
        P = 20 if self.pre_seq_len is None else self.pre_seq_len
        K = self.last_query_len if self.last_query_len is not None else int(reads_query)
        Q = self.post_seq_len if self.post_seq_len is not None else (10 if K else 0)
        if K and not reads_query:
            raise UserError(
                f"--last_query_len {K} is read by --pooling_method last and mean_last, not by {pooling}: change one"
            )
        if Q and not K:
            raise UserError(f"--post_seq_len {Q} is read by the last query alone: --last_query_len must be at least 1")
        if not P + Q + K:
            raise UserError("--use_prompt needs a prefix, a suffix or a last query: all their lengths are 0")
        return PromptOptions(
            use_prompt=True,
            prompt_projection=self.prompt_projection,
            prompt_hidden_size=self.prompt_hidden_size,
            pre_seq_len=P,
            post_seq_len=Q,
            last_query_len=K,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreInferenceOptions:
    """Frozen blocks run once, before training."""

    pre_inference: bool = False
    """Run the frozen blocks once over all items and keep the result, memory-mapped."""
    pre_inference_batch_size: int = 256
    """Items at a time."""
    pre_inference_devices: tuple[int, ...] = ()
    """GPUs to run on, by number, each with a share of the items; on a machine without GPUs as many processes. By
    default one."""
    pre_inference_precision: Literal["32", "16", "bf16"] = "32"
    """Of the frozen weights, their products and the result: 32, 16 or bf16."""
    pre_inference_layer_wise: Literal["auto", "True", "False"] = "auto"
    """Hold one block in memory at a time; auto does so where the weights exceed half of the free memory."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "pre_inference_batch_size")
        numbers_given = self.pre_inference_devices
        if any(number < 0 for number in numbers_given) or len(set(numbers_given)) < len(numbers_given):
            raise UserError(f"--pre_inference_devices must be different numbers from 0, got {numbers_given}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLearningOptions:
    """What of the items learns, from where on, and where to the result goes."""

    item_refresh: Literal["epoch", "step"] = "epoch"
    """Where items' own vectors are scored under --loss ce, the language model reads the histories' items in every
    step, and the classes of the softmax are its pooled states at the epoch's start (epoch), or it reads all items in
    every step (step)."""
    item_offset: bool = False
    """Add to every item's text vector one of its own, learned from zero; new items have none."""
    offset_lr: float | None = None
    """Learning rate of these; by default a tenth of --lr."""
    start_from: Path | None = None
    """Folder of a finished run on the same items to take the best weights from, such as one with a frozen language
    model: training goes on from there, with more blocks unfrozen, or with a prompt."""
    export_name: str | None = None
    """Write the trained items' vectors to embedding/DATASET/plm-NAME.npy."""

    def __post_init__(self) -> None:
        require_above(0, self, "offset_lr")
        if self.offset_lr is not None and not self.item_offset:
            raise UserError("--offset_lr is for --item_offset: give it too")
        if self.export_name is not None:
            check_name("--export_name", self.export_name)


def check_items(
    input_type: InputType,
    items: ItemOptions,
    prompt: PromptOptions,
    cache: PreInferenceOptions,
    learning: ItemLearningOptions,
) -> None:
    """Raise a `UserError` if some of the flags have nothing to act on."""
    if input_type == "id":
        if (items, prompt, cache) != (ItemOptions(), PromptOptions(), PreInferenceOptions()):
            raise UserError("--plm_..., --use_prompt and --pre_inference are for --input_type text, not id")
        if learning.item_offset:
            raise UserError("--item_offset is added to the vector of a text, which --input_type id has not")
        if learning.export_name is not None:
            raise UserError("--export_name writes a language model's vectors: it is for --input_type text")
    if cache.pre_inference and prompt.use_prompt and not (prompt.is_queries and items.plm_last_n_unfreeze):
        raise UserError(
            "--use_prompt changes every block's output, so --pre_inference has nothing to keep: drop one of the two"
        )
    if cache.pre_inference and items.plm_last_n_unfreeze == -1:
        raise UserError("--pre_inference keeps what frozen blocks make, --plm_last_n_unfreeze -1 freezes none")
    if cache != PreInferenceOptions() and not cache.pre_inference:
        raise UserError("--pre_inference_... are for --pre_inference: give it too")
