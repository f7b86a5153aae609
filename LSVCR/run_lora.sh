#!/usr/bin/env bash
# Alignment; the flags after it are passed on: bash LSVCR/run_lora.sh --dataset weibo --prompts zh
# Without flags: a demonstration on made-up videos and comments, a few minutes with smollm2.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  [ -d "$ROOT/data/comments-demo" ] || "$PYTHON" "$ROOT/scripts/prepare.py" comments-demo
  set -- --dataset comments-demo --train_num 24 --max_his_len 4 --tokenized_len 32 --max_source_length 320 --overwrite
  say_demonstration LSVCR/run_lora.sh "$@"
fi
exec "$PYTHON" "$ROOT/LSVCR/align.py" "$@"
