#!/usr/bin/env bash
# From raw data to the comparison, on a laptop: bash scripts/quickstart.sh
# Own data: bash scripts/quickstart.sh --source atomic --input DIR --name NAME [other flags of scripts/prepare.py SOURCE]
# Every step is resumed or skipped where it has been done, so that the command can be given again after an interruption.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
bash "$ROOT/scripts/setup.sh"

source=demo name=demo prepare=()
while [ $# -gt 0 ]; do
  case "$1" in
    --source) source="$2"; shift 2 ;;
    --source=*) source="${1#*=}"; shift ;;
    --name) name="$2"; shift 2 ;;
    --name=*) name="${1#*=}"; shift ;;
    *) prepare+=("$1"); shift ;;
  esac
done
if [ "$source" != demo ] && [ "$name" = demo ]; then
  echo "quickstart.sh: --source $source needs --name NAME, the folder of data/ to be made" >&2
  exit 2
fi

step() { printf '\n== %s\n' "$*"; }
step "1/4 preparing $name"
"$PYTHON" "$ROOT/scripts/prepare.py" "$source" --name "$name" ${prepare[@]+"${prepare[@]}"}
step "2/4 finetuning Recformer on $name and exporting item vectors"
bash "$ROOT/Recformer/finetune.sh" --dataset "$name" --max_token_num 64 --max_attr_length 16 --lr 2e-4 \
  --num_epochs 2 --second_stage_epochs 0 --valid_users 1000 --resume
step "3/4 counting what is popular; training SASRec and BERT4Rec from random and from exported item vectors"
train() {  # FAMILY [flags]
  for init_type in none longformer finetune; do
    printf '%s from %s\n' "$1" "$init_type"
    bash "$ROOT/$1/finetune.sh" --dataset "$name" --init_type "$init_type" --num_epochs 40 --patience 5 --resume "${@:2}"
  done
}
for baseline in popularity recency; do
  bash "$ROOT/Baselines/finetune.sh" --dataset "$name" --baseline "$baseline" --resume
done
train SASRec
# Of few and short histories BERT4Rec sees few targets at a time: it wants more of them asked, and more steps.
train Bert4Rec --mask_prob 0.5 --batch_size 32 --lr 3e-3
step "4/4 comparing"
"$PYTHON" "$ROOT/scripts/compare.py" --dataset "$name"
