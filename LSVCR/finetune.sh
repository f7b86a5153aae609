#!/usr/bin/env bash
# One task, flags are passed on: TASK=CommRank bash LSVCR/finetune.sh --dataset weibo --text NAME; without, a demonstration.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  [ -d "$ROOT/data/comments-demo" ] || "$PYTHON" "$ROOT/scripts/prepare.py" comments-demo
  "$PYTHON" "$ROOT/LSVCR/encode.py" --dataset comments-demo --llm_num_blocks 1 --tokenized_len 16 --init_type one-block
  set -- --dataset comments-demo --text one-block --num_epochs 4 --overwrite
  say_demonstration LSVCR/finetune.sh "$@"
fi
if [ -n "${TASK:-}" ]; then set -- --task "$TASK" "$@"; fi
exec "$PYTHON" "$ROOT/LSVCR/finetune.py" "$@"
