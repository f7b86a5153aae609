# Sourced by every recipe: its input folder, and commands that go on where an earlier call was ended.
set -euo pipefail
data="${1:?usage: bash $0 FOLDER, where FOLDER holds the raw data}"
data="$(cd "$data" && pwd)"
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
cd "$ROOT"
pretrained=Recformer/pretrain_ckpt/recformer_pretrain_ckpt.bin  # as pretraining.sh leaves it

prepare() { "$PYTHON" scripts/prepare.py "$@"; }           # SOURCE [flags]
train() { bash "$1/finetune.sh" "${@:2}" --resume; }       # FAMILY [flags]
encode() { "$PYTHON" Recformer/encode.py "$@"; }           # [flags]
compare() { "$PYTHON" scripts/compare.py --dataset "$@"; }  # NAME [flags]
baselines() {  # NAME [flags]
  local baseline
  for baseline in popularity recency; do train Baselines --dataset "$1" --baseline $baseline "${@:2}"; done
}
