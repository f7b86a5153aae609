"""The published scripts' flags: taken, translated or refused with flags that exist, as the documents' table says."""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
import tyro

from scripts.import_weights import Config as ImportConfig
from seqrec.basics.checks import list_flags
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.data.sources.recformer import JsonSplits

LAUNCHED = {"finetune.sh": "finetune", "lightning_run.sh": "pretrain"}
NEEDED = {"lightning_run.sh": ("--valid_dataset", "a"), "finetune.sh": ()}
"""Flags without which a command says what is missing."""
NOTHING = "\N{EN DASH}"
BESIDE = {
    "--projection_n_layers": ("--projection_inner_sizes", "4 4 4"),
    **dict.fromkeys(("--pre_seq", "--post_seq", "--last_query"), ("--use_prompt",)),
    "--pre_inference_": ("--pre_inference",),
}
"""Flags that others are for, by how those begin."""


@dataclass(frozen=True)
class Row:
    """One flag of a published script."""

    command: str
    flag: str
    default: str
    here: str
    default_here: str


def rows() -> Iterator[Row]:
    command = ""
    for line in (ROOT / "docs" / "published-flags.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            command = line.removeprefix("## ")
        elif (ROOT / command).is_file() and line.startswith("| ") and not line.startswith("| published"):
            yield Row(command, *(cell.strip().strip("`") for cell in line.strip("|").split("|")))


ROWS = list(rows())
COMMANDS = list(dict.fromkeys(row.command for row in ROWS))


def module_of(command: str) -> Any:
    """Return the module that a launcher runs: it has `Config` and `PUBLISHED`."""
    family, launcher = command.split("/")
    return importlib.import_module(f"{family}.{LAUNCHED[launcher]}")


def defaults_of(command: str) -> dict[str, Any]:
    """Return the defaults of a command's flags."""
    needed = {"valid_dataset": "a"} if "lightning" in command else {}
    return dict(list_flags(module_of(command).Config(**needed)))


def parse(command: str, *words: str) -> dict[str, Any]:
    """Return the flags that a command ends up with, by name."""
    module = module_of(command)
    given = ["--init_type", "finetune"] if "init_type" in {field.name for field in fields(module.Config)} else []
    config = tyro.cli(
        module.Config,
        args=module.PUBLISHED.translate([*given, *NEEDED[command.split("/")[1]], *words]),
        config=(tyro.conf.OmitArgPrefixes,),
        use_underscores=True,
        console_outputs=False,
    )
    return dict(list_flags(config))


def test_the_table_has_every_flag_of_the_scripts() -> None:
    for command in COMMANDS:
        published = module_of(command).PUBLISHED
        told = [row.flag for row in ROWS if row.command == command and row.flag.startswith("--")]
        assert len(told) == len(set(told)) > 15
        assert {*published.taken, *published.refused} <= {*told}


@pytest.mark.parametrize("row", [row for row in ROWS if row.flag.startswith("--")], ids=lambda row: row.flag)
def test_a_flag_is_what_the_table_says(row: Row) -> None:
    switches = {"on", "off", "False", "false"}
    value = () if row.default in switches else tuple(row.default.split()) if row.default != NOTHING else ("7",)
    beside = next((words for start, words in BESIDE.items() if row.flag.startswith(start)), ())
    if row.here == "no effect":
        assert parse(row.command, row.flag, *value) == parse(row.command)
        return
    if row.here == "refused":
        with pytest.raises(UserError, match=re.escape(f"{row.flag} is the published script's: ")) as caught:
            parse(row.command, row.flag, *value)
        _check_advice(str(caught.value).partition(": ")[2])
        return
    name, _, fixed = row.here.removeprefix("--").partition(" ")
    name = {"output_dir": "runs_dir", "experiment_dir": "runs_dir"}.get(name, name)
    if row.flag in ("--metric_ks", "--split"):
        value = tuple(row.default_here.split())
    found = parse(row.command, row.flag, *value, *beside)[name]
    if fixed:
        assert str(found) == fixed
    elif row.default in switches:
        assert str(found) == "True"
    elif isinstance(found, float):
        assert found == float(value[0])
    else:
        assert (" ".join(map(str, found)) if isinstance(found, tuple) else str(found)) == " ".join(value)


def _check_advice(text: str) -> None:
    """Check that what a refusal names exists: flags of some command of the project, and files."""
    for path in re.findall(r"(?:scripts|Recformer)/[\w/]+\.(?:py|sh)", text):
        assert (ROOT / path).is_file(), path
    known = {f"--{name}" for command in COMMANDS for name in defaults_of(command)}
    known |= {f"--{field.name}" for config in (JsonSplits, ImportConfig) for field in fields(config)}
    assert set(re.findall(r"--\w+", text)) <= known | {"--help", "--recipe"}, text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.flag)
def test_our_default_is_what_the_table_says(row: Row) -> None:
    if row.default_here == NOTHING:
        return
    defaults = defaults_of(row.command)
    name = row.here.removeprefix("--").partition(" ")[0]
    value = defaults[{"output_dir": "runs_dir", "experiment_dir": "runs_dir"}.get(name, name)]
    if row.default_here == "runs":
        assert value == ROOT / "runs"
    else:
        assert (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) == row.default_here


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_sets_the_published_values_and_flags_beside_it_win(command: str) -> None:
    found = parse(command, "--recipe", "published")
    for row in ROWS:
        name, _, fixed = row.here.removeprefix("--").partition(" ")
        same = row.default_here == row.default or row.flag in SET_ELSEWHERE
        if row.command != command or row.here in ("refused", "no effect") or same or row.default == NOTHING:
            continue
        value = found[name]
        if fixed:
            assert value == (fixed,) or str(value) == fixed, name
        elif isinstance(value, tuple):
            assert " ".join(map(str, value)) == row.default, name
        elif isinstance(value, bool):
            assert value is (row.default not in ("off", "False")), name
        elif name == "item_lr":
            assert value == found["lr"]
        elif isinstance(value, float):
            assert value == float(row.default), name
        else:
            assert str(value).endswith(row.default), name
    assert parse(command, "--recipe=published", "--batch_size", "9", "--lr", "0.5")["batch_size"] == 9
    assert parse(command, "--lr", "0.5", "--recipe", "published")["lr"] == 0.5


SET_ELSEWHERE = {
    *("--output_dir", "--experiment_dir", "--dataset_code", "--valid_step", "--model_init_seed"),
    *("--device", "--fp16", "--dataloader_num_workers", "--num_workers", "--accelerator"),
    *("--input_type", "--dataset", "--plm_name", "--projection_n_layers", "--projection_inner_sizes"),
    *("--pooling_method", "--prompt_projeciton", "--pre_seq_len", "--post_seq_len", "--last_query_len"),
    *("--pre_inference_batch_size", "--pre_inference_devices", "--pre_inference_layer_wise"),
}
"""Flags that name data, folders, seeds or the machine's parts, which no recipe sets; when to validate; and a language
model's, which are for texts alone."""


@pytest.mark.skipif("Recformer/finetune.sh" not in COMMANDS, reason="the family is absent")
def test_switches_take_true_and_false_and_other_forms_of_a_flag_are_known() -> None:
    finetune = "Recformer/finetune.sh"
    for words, expected in (
        (("--test_only", "True"), True),
        (("--test_only", "False"), False),
        (("--test_only=false",), False),
        (("--test_only",), True),
        (("--test-only", "--lr", "1"), True),
        (("--test_only", "--learning-rate=1"), True),
    ):
        assert parse(finetune, *words)["test_only"] is expected, words
    for words in (("--device=6",), ("--device", "6")):
        with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=N before the command chooses a GPU"):
            parse(finetune, *words)
    with pytest.raises(UserError, match="--test_only must be True or False, got 'perhaps'"):
        parse(finetune, "--test_only=perhaps")
    line = "--pretrain_ckpt a.bin --data_path b --num_train_epochs 128 --device 6 --fp16 --ckpt c.bin --test_only False"
    with pytest.raises(UserError) as caught:
        parse(finetune, *line.split())
    assert [said.split()[0] for said in str(caught.value).splitlines()] == ["--device", "--ckpt"]
    with pytest.raises(UserError, match="--recipe must be published, got 'mine'"):
        parse(finetune, "--recipe", "mine")
    with pytest.raises(UserError, match="--recipe must be published, got ''"):
        parse(finetune, "--recipe")
