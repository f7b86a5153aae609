#!/usr/bin/env bash
# Alignment; the flags after it are passed on: bash LSVCR/run_lora.sh --dataset weibo --prompts zh
# Without flags: a demonstration on made-up videos and comments, a few minutes with smollm2.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  [ -d "$ROOT/data/comments-demo" ] || "$PYTHON" "$ROOT/scripts/prepare.py" comments-demo
  set -- --dataset comments-demo --train_num 16 --batch_size 8 --llm_last_n_unfreeze 4 --max_his_len 3 --tokenized_len 24 \
    --max_source_length 240 --overwrite
  say_demonstration LSVCR/run_lora.sh "$@"
fi
exec "$PYTHON" "$ROOT/LSVCR/align.py" "$@"
