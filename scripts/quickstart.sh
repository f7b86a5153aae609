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

SECONDS=0 begun=0 title=
step() {  # TITLE: says how long the step before took
  if [ -n "$title" ]; then printf -- '-- %d s\n' "$((SECONDS - begun))"; fi
  begun=$SECONDS title="$*"
  if [ -n "$title" ]; then printf '\n== %s\n' "$title"; fi
}
train() {  # FAMILY INIT_TYPE [flags]
  printf '%s from %s\n' "$1" "$2"
  bash "$ROOT/$1/finetune.sh" --dataset "$name" --init_type "$2" --patience 5 --resume "${@:3}"
}
short=(--max_token_num 64 --max_attr_length 16)

step "1/6 preparing $name"
"$PYTHON" "$ROOT/scripts/prepare.py" "$source" --name "$name" ${prepare[@]+"${prepare[@]}"}
step "2/6 the first rows: what is popular; SASRec from random vectors and from those of an untrained language model"
for baseline in popularity recency text-knn; do
  bash "$ROOT/Baselines/finetune.sh" --dataset "$name" --baseline "$baseline" --resume
done
"$PYTHON" "$ROOT/Recformer/encode.py" --dataset "$name" --init_type longformer "${short[@]}"
for init_type in none longformer; do train SASRec "$init_type" --num_epochs 40; done
"$PYTHON" "$ROOT/scripts/compare.py" --dataset "$name"
step "3/6 finetuning Recformer on $name, which exports its item vectors"
bash "$ROOT/Recformer/finetune.sh" --dataset "$name" "${short[@]}" --lr 2e-4 --num_epochs 2 --second_stage_epochs 0 \
  --valid_users 500 --resume
step "4/6 SASRec from those vectors; BERT4Rec from all three"
train SASRec finetune --num_epochs 40
# Of few and short histories BERT4Rec sees few targets at a time: it wants more of them asked, and more steps.
for init_type in none longformer finetune; do
  train Bert4Rec "$init_type" --num_epochs 25 --mask_prob 0.5 --batch_size 32 --lr 3e-3
done
step "5/6 comparing"
"$PYTHON" "$ROOT/scripts/compare.py" --dataset "$name"
step "6/6 exporting SASRec, to be served"
for start in none finetune; do
  run="$ROOT/runs/SASRec/$name/$start-seed42"
  "$PYTHON" "$ROOT/scripts/export.py" "$run" --output "$ROOT/exports/$name/sasrec-$start" --name "sasrec-$start" --overwrite
done
step
printf 'all steps: %d s\n' "$SECONDS"
cat << END

To try the models side by side, and to serve them:
  cd "$ROOT"
  .venv/bin/python scripts/serve.py exports/$name/sasrec-none exports/$name/sasrec-finetune \\
    runs/Recformer/$name/longformer-seed42 runs/Baselines/$name/text-knn
and open http://127.0.0.1:8000
END
