"""The published configuration: YAML recipes and `--key value` pairs, translated to the flags of `finetune.py`.

Every key is taken, has nothing to do here, or is refused with what to use; an unknown one with what comes near it.
"""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from PerSRec.options import Config
from seqrec.basics.checks import list_flags
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.opening import read_json_object

Settings = dict[str, Any]
FAMILY = Path(__file__).parent
MODELS = {
    "HSTU": ("hstu", "id"),
    "PersonalizedHSTU": ("hstu", "id"),
    "SASRec": ("sasrec", "id"),
    "LLMIDRec": ("llama", "id"),
    "HLLM": ("llama", "text"),
    "PersonalizedHLLM": ("llama", "text"),
}
"""By the published name: --model and --input_type."""
RENAMED = {
    "seed": "seed",
    "checkpoint_dir": "runs_dir",
    "loss": "loss",
    "epochs": "num_epochs",
    "train_batch_size": "batch_size",
    "optim_args.learning_rate": "lr",
    "optim_args.weight_decay": "weight_decay",
    "scheduler_args.warmup": "warmup_steps",
    "topk": "metric_ks",
    "valid_metric": "best_metric",
    "eval_step": "eval_every",
    "precision": "precision",
    "num_workers": "dataloader_num_workers",
    "clip_grad_norm": "gradient_clip_val",
    "MAX_ITEM_LIST_LENGTH": "maxlen",
    "train_feat_max_length": "train_feat_max_length",
    "number_of_user_tokens": "number_of_user_tokens",
    "pretrain_item_num": "pretrain_item_num",
    "recent_item_num": "recent_item_num",
    "insert_method": "insert_method",
    "last_k_eval_test": "last_k_eval_test",
    "item_start_position": "item_start_position",
    "item_end_position": "item_end_position",
    "n_layers": "n_layers",
    "n_heads": "n_heads",
    "inner_size": "inner_size",
    "hidden_dropout_prob": "dropout_rate",
    "user_pretrain_dir": "user_pretrain_dir",
    "nce_thres": "nce_thres",
}
"""By the published key: the flag that its value is for."""
OF_TEXTS = {
    "item_pretrain_dir": "plm_name",
    "MAX_TEXT_LENGTH": "tokenized_len",
    "item_prompt": "item_prompt",
    "item_emb_token_n": "item_emb_token_n",
}
"""The same, for items that are texts."""
SWITCHES = {
    "show_progress": "progress_bar",
    "data_split": "data_split",
    "loss_on_all_items": "loss_on_all_items",
    "suppress_history": "filter_seen",
    "auto_resume": "resume",
    "enable_relative_attention_bias": "enable_relative_attention_bias",
    "gradient_checkpointing": "gradient_checkpointing",
}
"""By the published key: the flag that its True and False are for."""
WIDTHS = ("item_embedding_size", "hstu_embedding_size", "embedding_size", "item_embed_dim", "hidden_size")
IDLE = {
    *("state", "reproducibility", "wandb_project", "metric_decimal_place", "loss_decimal_place", "eval_batch_size"),
    *("update_interval", "use_ft_flash_attn", "device", "use_gpu", "text_path", "user_llm_init", "model"),
}
"""Keys that need nothing here, or are read beside others."""
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "log_wandb": ((False,), "scripts/curves.py draws what a run wrote"),
    "use_time": ((None, False), "--time_bias lets hstu's attention depend on time"),
    "item_llm_init": ((True,), "the items' language model always starts from its weights"),
    "need_training": ((None, True), "--val_only True evaluates a finished run"),
    "predict_with_full_item_seq": ((None, True), "training reads whole sequences; give it with --val_only True"),
    "item_dropout": ((None, 0), "--dropout_rate drops parts of the vectors of items"),
    "debug": ((None, False), "--valid_users N and --epochs 1 make a short run"),
    "layer_norm_eps": ((1e-12,), "it is fixed"),
    "initializer_range": ((0.02,), "it is fixed"),
}
"""Keys with the values that mean what happens here, and what to use for others."""
READ = {
    *("dataset", "data_path", "text_keys", "use_text", "metrics", "stopping_step", "strategy", "stage", "hidden_act"),
    *("scheduler_args.type", "fix_temp", "num_negatives", "attn_dropout_prob", "val_only", "MAX_ITEM_LIST_LENGTH_TEST"),
}
"""Keys with a translation of their own, see `translate`."""
OWN = {name for name, _ in list_flags(Config())}
KNOWN = {*RENAMED, *OF_TEXTS, *SWITCHES, *WIDTHS, *IDLE, *ONLY, *READ, *OWN}


def read_words(words: Sequence[str]) -> Settings:
    """Return the settings of a command line: those of `--config_file A [B ...]`, and over them `--key value` pairs.

    Raises:
        MissingFileError: If a file is nowhere.
        UserError: If a word is out of place, a file is no flat table, or a key is unknown.
    """
    files: list[str] = []
    given: Settings = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} stands where a --key is expected: give --config_file FILE ... --key value ...")
        key = word.removeprefix("--")
        if key == "config_file":
            while rest and not rest[0].startswith("--"):
                files.append(rest.pop(0))
            continue
        if not rest or (rest[0].startswith("--") and key not in OWN):
            raise UserError(f"--{key} needs a value")
        given[key] = parse_value(rest.pop(0))
    if not files:
        raise UserError("--config_file is missing: give files such as overall/ID.yaml IDNet/hstu.yaml")
    settings: Settings = {}
    for name in files:
        settings |= _read_file(name)
    settings |= given
    for key in settings:
        if key not in KNOWN:
            near = difflib.get_close_matches(key, KNOWN, 1)
            raise UserError(f"unknown key {key!r}" + (f": did you mean {near[0]}?" if near else ""))
    return settings


def parse_value(word: str) -> Any:
    """Return what a word of the command line means: JSON, none, true, false, a number, or itself."""
    if "[" in word or "{" in word:
        try:
            return json.loads(word.replace('\\"', '"'))
        except ValueError as error:
            raise UserError(f'{word} is no JSON ({error}): quote it, as in \'["title", "tag"]\'') from error
    fixed = {"none": None, "true": True, "false": False}
    if word.lower() in fixed:
        return fixed[word.lower()]
    try:
        number = float(word)
    except ValueError:
        return word
    return int(number) if number.is_integer() else number


def _read_file(name: str) -> Settings:
    path = next((path for path in (Path(name), FAMILY / name) if path.is_file()), None)
    if path is None:
        raise MissingFileError(f"--config_file {name} does not exist, here or in {FAMILY}")
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(read, dict) or not all(isinstance(key, str) for key in read):
        raise UserError(f"{path} must hold `key: value` lines")
    flat: Settings = {}
    for key, value in read.items():
        inner = value if isinstance(value, Mapping) else {None: value}
        for part, own in inner.items():
            # The reader takes 1e-4 for text.
            flat[key if part is None else f"{key}.{part}"] = parse_value(own) if isinstance(own, str) else own
    return flat


def translate(settings: Settings) -> list[str]:
    """Return the flags of `finetune.py`.

    Raises:
        UserError: If a value has no counterpart here.
    """
    for key, (values, instead) in ONLY.items():
        if key in settings and settings[key] not in values:
            raise UserError(f"{key}: {settings[key]!r} is not available: {instead}")
    name = settings.get("model")
    if name not in MODELS:
        raise UserError(f"model must be one of {', '.join(MODELS)}, got {name!r}: give a file of IDNet/ or HLLM/ too")
    model, input_type = MODELS[name]
    if name.startswith("Personalized") and not settings.get("number_of_user_tokens"):
        raise UserError(f"model {name} needs number_of_user_tokens and pretrain_item_num")
    flags = ["--model", model, "--input_type", input_type, *_data_flags(settings, input_type)]

    def add(key: str, flag: str, change: Callable[[Any], Any] = lambda value: value) -> None:
        value = settings.get(key)
        if value is not None:
            value = change(value)
            flags.extend([f"--{flag}", *map(_word, value if flag == "metric_ks" else [value])])

    sizes = () if settings.get("user_pretrain_dir") is None else ("n_layers", "n_heads", "inner_size")  # it has its own
    for key, flag in RENAMED.items():
        if key not in sizes:
            add(key, flag)
    for key, flag in SWITCHES.items():
        if settings.get(key) is not None and not (key.startswith("enable_") and model != "hstu"):
            flags.append(f"--{flag}" if settings[key] else f"--no_{flag}")
    flags += _width_flags(settings, input_type)
    flags += _text_flags(settings) if input_type == "text" else []
    add("stopping_step", "patience", lambda value: value + 1)  # they stop when more than this have failed
    add("scheduler_args.type", "schedule", lambda value: {"cosine": "cosine", "liner": "linear"}.get(value, "constant"))
    if model != "hstu":
        add("attn_dropout_prob", "attn_dropout_prob")
    flags += _strategy_flags(settings) + _loss_flags(settings)
    for key in sorted(settings.keys() & OWN - {*RENAMED, *OF_TEXTS, *SWITCHES, *READ, *IDLE}):
        value = settings[key]
        if isinstance(value, bool):
            flags.append(f"--{key}" if value else f"--no_{key}")
        else:
            flags += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def _data_flags(settings: Settings, input_type: str) -> list[str]:
    """Return where the prepared dataset is; its texts must be those that are asked for."""
    name, folder = str(settings.get("dataset", "")), Path(str(settings.get("data_path", ".")))
    places = [place / name for place in (folder, FAMILY / folder)]
    path = next((place for place in places if (place / "manifest.json").is_file()), None)
    if path is None:
        raw = [place.with_name(f"{name}{end}") for place in places for end in (".csv", ".parquet")]
        if there := next((file for file in raw if file.is_file()), None):
            raise UserError(f"{there} is not prepared: python scripts/prepare.py hllm --input {there} --name {name}")
        return ["--dataset", name]
    keys = settings.get("text_keys")
    if input_type == "text" and keys is not None:
        fields = read_json_object(path / "manifest.json", "prepare the dataset again", {"attributes": list})
        if (there := fields["attributes"]) != keys:
            raise UserError(
                f"{path} has the texts {json.dumps(there)}, and text_keys asks for {json.dumps(keys)}: prepare it with "
                f"--attributes {','.join(map(str, keys))}, or give --text_keys '{json.dumps(there)}'"
            )
    return ["--data_path", str(path)]


def _width_flags(settings: Settings, input_type: str) -> list[str]:
    """Return the width, which the published models give items and histories apart; or where the weights come from."""
    if settings.get("user_pretrain_dir") is not None:  # over ids it gives the architecture, unless they say otherwise
        return [] if settings.get("user_llm_init", input_type == "text") else ["--no_user_llm_init"]
    given = {key: settings[key] for key in WIDTHS if settings.get(key) is not None}
    if len(set(given.values())) > 1:
        told = ", ".join(f"{key} {value}" for key, value in given.items())
        raise UserError(f"{told} must be equal: items and histories have one width")
    return ["--hidden_units", str(next(iter(given.values())))] if given else []


def _text_flags(settings: Settings) -> list[str]:
    """Return what is read of items that are texts; their language model is trained as a whole, at the common rate."""
    flags = ["--name_attributes"] + ["--plm_gradient_checkpointing"] * bool(settings.get("gradient_checkpointing"))
    for key, flag in OF_TEXTS.items():
        if settings.get(key) is not None:
            flags += [f"--{flag}", str(settings[key])]
    rate = settings.get("optim_args.learning_rate")
    learning = {"plm_last_n_unfreeze": -1, "plm_lr_layer_decay": 1.0} | ({} if rate is None else {"plm_lr": rate})
    for name, value in learning.items():
        flags += [] if name in settings else [f"--{name}", str(value)]
    return flags


def _strategy_flags(settings: Settings) -> list[str]:
    strategy, stage = settings.get("strategy"), settings.get("stage", 2)
    if strategy in (None, "auto", "ddp"):
        return [] if strategy is None else ["--strategy", strategy]
    if strategy == "deepspeed" and stage in (2, 3):
        return ["--strategy", f"deepspeed_stage_{stage}"]
    if strategy == "deepspeed":
        raise UserError(f"stage must be 2 or 3, got {stage!r}")
    return ["--strategy", str(strategy)]


def _loss_flags(settings: Settings) -> list[str]:
    """Return temperature and number of negatives: theirs are S + 1 for each sequence, shared by the batch."""
    is_fixed = bool(settings.get("fix_temp"))
    flags = [] if "temp" in settings else ["--temp", "0.05" if is_fixed else "0.07"]
    flags += [] if is_fixed or "learn_temp" in settings else ["--learn_temp"]
    pool = settings.get("num_negatives")
    if pool is None and settings.get("loss") == "nce":
        pool = settings.get("train_batch_size", 128) * (settings.get("MAX_ITEM_LIST_LENGTH", 50) + 1)
    flags += [] if pool is None else ["--num_negatives", str(pool)]
    if settings.get("metrics") is not None:
        odd = [name for name in settings["metrics"] if str(name).lower() not in ("recall", "ndcg", "mrr")]
        if odd:
            raise UserError(f"metrics are Recall, NDCG and MRR, got {odd[0]!r}")
    length = settings.get("MAX_ITEM_LIST_LENGTH")
    if settings.get("MAX_ITEM_LIST_LENGTH_TEST") not in (None, length):
        raise UserError(
            f"MAX_ITEM_LIST_LENGTH_TEST must be MAX_ITEM_LIST_LENGTH {length}: the test reads as training does"
        )
    if settings.get("hidden_act") not in (None, "silu", "gelu"):
        raise UserError(f"hidden_act is silu in hstu and gelu in sasrec, got {settings['hidden_act']!r}")
    return flags
