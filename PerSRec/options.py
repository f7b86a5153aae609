"""The flags of PerSRec."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from seqrec.basics.checks import require_at_least, require_at_most
from seqrec.basics.errors import UserError
from seqrec.data.vectors import NONE
from seqrec.items.options import (
    InputType,
    ItemLearningOptions,
    ItemOptions,
    PreInferenceOptions,
    PromptOptions,
    check_items,
)
from seqrec.nn.losses import LossOptions
from seqrec.nn.segments import Group, Window
from seqrec.training.id_options import RepeatingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """What is read of a history, and what of it is compressed."""

    maxlen: Annotated[int, tyro.conf.arg(aliases=["--MAX_ITEM_LIST_LENGTH"])] = 50
    """Maximum number of most recent events that the model reads."""
    train_feat_max_length: int | None = None
    """Events that a longer history is cut into, from its end, of which the latest --maxlen + 1 are read; that number if
    not given."""
    data_split: bool = True
    """Cut a long history into several training sequences; otherwise train on its latest events alone."""
    number_of_user_tokens: int = 0
    """Learned tokens that old events are compressed into; 0 compresses nothing."""
    pretrain_item_num: int | None = None
    """Events of a full history before the tokens."""
    recent_item_num: int | None = None
    """Events after the tokens; --maxlen less --pretrain_item_num, and need not be given."""
    insert_method: str = "0"
    """0 inserts all tokens after --pretrain_item_num events; [[offset, k], ...] inserts k after that many events
    each."""

    loss_on_all_items: bool = True
    """Predict what follows every event of a training sequence; otherwise what follows recent ones alone."""
    compressor: Literal["attention", "mean"] = "attention"
    """How tokens take up old events: by attention in every block, or by the mean of their vectors, once (a control)."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "maxlen")
        require_at_most(100_000, self, "maxlen")
        require_at_least(0, self, "number_of_user_tokens")
        require_at_most(10_000, self, "number_of_user_tokens")
        shortest = self.maxlen + 1
        if self.train_feat_max_length is not None and self.train_feat_max_length < shortest:
            raise UserError(
                f"--train_feat_max_length {self.train_feat_max_length} must be at least {shortest}, one more than "
                f"--maxlen {self.maxlen}"
            )
        if not self.number_of_user_tokens:
            given = self.pretrain_item_num, self.recent_item_num, self.insert_method, self.compressor
            if given != (None, None, "0", "attention") or not self.loss_on_all_items:
                raise UserError(
                    "--pretrain_item_num, --recent_item_num, --insert_method, --compressor and --no_loss_on_all_items "
                    "are for --number_of_user_tokens K: give it too"
                )
            return
        P, R = self.pretrain_item_num, self.recent_item_num
        if P is None:
            raise UserError(f"--number_of_user_tokens {self.number_of_user_tokens} needs --pretrain_item_num")
        if not 0 < P < self.maxlen:
            raise UserError(f"--pretrain_item_num must lie in 1..{self.maxlen - 1}, below --maxlen, got {P}")
        if R not in (None, self.maxlen - P):
            raise UserError(
                f"--pretrain_item_num {P} and --recent_item_num {R} must sum to --maxlen {self.maxlen}: change one"
            )
        placed = self.window.num_tokens
        if not self.window.num_recent:
            raise UserError(f"--insert_method {self.insert_method} leaves no recent event of --maxlen {self.maxlen}")
        if placed != self.number_of_user_tokens:
            raise UserError(
                f"--insert_method places {placed} tokens, --number_of_user_tokens is {self.number_of_user_tokens}"
            )

    @property
    def window(self) -> Window:
        """The slots of a history and its tokens."""
        if not self.number_of_user_tokens:
            return Window(self.maxlen)
        apart = self.compressor == "mean"
        if self.insert_method in ("0", "None", "none"):
            assert self.pretrain_item_num is not None
            return Window(self.maxlen, (Group(self.pretrain_item_num, self.number_of_user_tokens),), apart)
        try:
            groups = tuple(Group(*(int(number) for number in pair)) for pair in json.loads(self.insert_method))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"--insert_method {self.insert_method!r} must be 0 or pairs [[offset, k], ...], such as [[100, 2], "
                "[150, 2]]"
            ) from error
        return Window(self.maxlen, groups, apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The architecture."""

    model: Literal["hstu", "sasrec", "llama"] = "hstu"
    """Blocks: hstu (gated, attention without a softmax), sasrec (a post-norm transformer) or llama (a new Llama, or the
    language model of --user_pretrain_dir)."""
    user_pretrain_dir: str | None = None
    """Language model whose blocks read the items' vectors, a name as for --plm_name: it decides width, blocks and
    heads. For --model llama."""
    user_llm_init: bool = True
    """Start from its weights; otherwise it gives the architecture alone."""
    hidden_units: Annotated[int, tyro.conf.arg(aliases=["--hstu_embedding_size", "--embedding_size"])] = 64
    """Width D."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 2
    """Attention heads per block."""
    dropout_rate: Annotated[float, tyro.conf.arg(aliases=["--hidden_dropout_prob"])] = 0.2
    """Dropout rate of embeddings and of what a block adds."""
    attn_dropout_prob: float | None = None
    """Dropout rate of attention weights: in sasrec by default --dropout_rate, in llama 0."""
    inner_size: int = 4
    """Inner width of the feed-forward networks of sasrec and llama, in widths D."""
    block: Literal["post_norm", "sasrec", "ligr"] = "post_norm"
    """Blocks of --model sasrec: post_norm (GELU, --inner_size), or those of the SASRec folder, sasrec and ligr."""
    enable_relative_attention_bias: bool = True
    """Let hstu's attention depend on how many places lie between events, and with --time_bias on how much time."""
    time_bias: bool = False
    """Let hstu's attention depend on the time between events; needs timestamps."""
    compat: Literal["fixed", "published"] = "fixed"
    """published keeps flaws of the published code, to compare with it: hstu's sums are divided by the number of places
    that ask, so kept tokens do not give what whole histories give; the last event before tokens predicts the first of
    them; and ids have one item more, which never occurs."""
    gradient_checkpointing: bool = False
    """Keep of each block that reads histories its input alone, and compute it again for the gradients: less memory,
    more time."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "hidden_units", "n_layers", "n_heads", "inner_size")
        require_at_most(100_000, self, "hidden_units")
        require_at_most(1_000, self, "n_layers", "inner_size")
        if self.hidden_units % self.n_heads:
            raise UserError(f"--hidden_units {self.hidden_units} must be a multiple of --n_heads {self.n_heads}")
        for name in ("dropout_rate", "attn_dropout_prob"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise UserError(f"--{name} must lie in [0, 1), got {rate}")
        if self.model == "hstu" and (self.attn_dropout_prob is not None or self.inner_size != 4):
            raise UserError("--attn_dropout_prob and --inner_size are for --model sasrec and llama, hstu has neither")
        if self.block != "post_norm":
            if self.model != "sasrec":
                raise UserError(f"--block {self.block} is for --model sasrec, not {self.model}")
            if self.attn_dropout_prob is not None or self.inner_size != 4:
                raise UserError(f"--attn_dropout_prob and --inner_size are for --block post_norm, not {self.block}")
        if self.time_bias and not (self.model == "hstu" and self.enable_relative_attention_bias):
            raise UserError("--time_bias is a part of hstu's relative bias: it is for --model hstu with that bias")
        if self.user_pretrain_dir is None:
            if not self.user_llm_init:
                raise UserError("--no_user_llm_init is for the language model of --user_pretrain_dir: give it too")
            return
        if self.model != "llama":
            raise UserError(f"--user_pretrain_dir is for --model llama, not {self.model}")
        given = self.hidden_units, self.n_layers, self.n_heads, self.inner_size
        if given != (64, 2, 2, 4):
            raise UserError(
                "--user_pretrain_dir decides width, blocks and heads: drop --hidden_units, --n_layers, --n_heads and "
                "--inner_size"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RepeatingConfig):
    """One PerSRec run: data, items, history and user tokens, architecture, loss, training and evaluation."""

    input_type: InputType = "id"
    """Items as ids with a vector each, or as texts: over texts, --model llama is HLLM."""
    items: ItemOptions = field(default_factory=ItemOptions)
    item_emb_token_n: Literal[0, 1] | None = None
    """A learned token after an item's text, whose last state is the item's vector (1), or none (0): then
    --pooling_method says what is. It is read by the blocks that are trained. By default 1 where some are and
    --pooling_method is not given."""
    cache: PreInferenceOptions = field(default_factory=PreInferenceOptions)
    learning: ItemLearningOptions = field(default_factory=ItemLearningOptions)
    history: HistoryOptions = field(default_factory=HistoryOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    objective: LossOptions = field(default_factory=lambda: LossOptions(temp=0.05))
    learn_temp: bool = False
    """Learn the temperature, from --temp on."""

    def __post_init__(self) -> None:
        RepeatingConfig.__post_init__(self)
        check_items(self.input_type, self.items, self.prompt, self.cache, self.learning)
        if self.history.number_of_user_tokens and self.model.n_layers < 2:
            raise UserError(
                "--number_of_user_tokens needs --n_layers 2 or more: recent events read in one block what tokens took "
                "from old ones in the block before"
            )
        if self.model.compat == "published":
            if self.objective.loss != "nce" or self.objective.temp is None:
                raise UserError("--compat published is for --loss nce and --temp, the loss of the published code")
            if self.init_type != NONE:
                raise UserError("--compat published has an item without a vector: drop --init_type")
        if self.learn_temp and self.objective.temp is None:
            raise UserError("--learn_temp starts from --temp: give it too")
        if self.input_type == "id":
            if self.learning != ItemLearningOptions():
                raise UserError("--item_refresh, --offset_lr and --start_from are for --input_type text, not id")
            return
        if self.init_type != NONE or self.item_lr is not None:
            raise UserError("--init_type and --item_lr are for --input_type id, whose items have vectors of their own")
        if self.item_emb_token_n and self.items.pooling_method not in (None, "last"):
            raise UserError(
                f"--item_emb_token_n 1 makes the token's state the vector, --pooling_method "
                f"{self.items.pooling_method} another: give one of the two"
            )
        if self.item_emb_token_n and not self.items.plm_last_n_unfreeze:
            raise UserError("--item_emb_token_n 1 is read by blocks that are trained: give --plm_last_n_unfreeze")

    @property
    def prompt(self) -> PromptOptions:
        """The learned token after an item's text."""
        has_token = bool(self.item_emb_token_n)
        if self.item_emb_token_n is None:
            has_token = self.items.plm_last_n_unfreeze != 0 and self.items.pooling_method is None
        if not has_token or self.input_type == "id":
            return PromptOptions()
        return PromptOptions(use_prompt=True, pre_seq_len=0, post_seq_len=0, last_query_len=1)
