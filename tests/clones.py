"""Copies of the project, as a fresh clone is, and a small form of one."""

import shutil
import subprocess
import sys
from pathlib import Path

from seqrec.basics.paths import ROOT
from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer


def copy_project(folder: Path) -> Path:
    """Copy what git knows of the project, and lend the copy this environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def shrink(project: Path) -> None:
    """Make a copy's small shops smaller still, and its MiniLM a tiny BERT of random weights."""
    from transformers import BertConfig, BertModel

    tiny = project / "tiny"
    load_tokenizer(find_backbone(MINILM)).save_pretrained(tiny)
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(tiny)
    for name, changes in {
        "data/discovery.py": {"num_users=300": "num_users=40", "num_items=200": "num_items=100"},
        "text/backbones.py": {"if name == MINILM:": f"if name == MINILM:\n        return Path({str(tiny)!r})"},
    }.items():
        file = project / "seqrec" / name
        text = file.read_text()
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        file.write_text(text)
