#!/usr/bin/env bash
# One task; the flags after it are passed on: TASK=CommRank bash LSVCR/finetune.sh --dataset weibo --text longformer
# Without flags: a demonstration on made-up videos and comments, TASK=Rec.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  [ -d "$ROOT/data/comments-demo" ] || "$PYTHON" "$ROOT/scripts/prepare.py" comments-demo
  set -- --dataset comments-demo --num_epochs 4 --overwrite
  say_demonstration LSVCR/finetune.sh "$@"
fi
if [ -n "${TASK:-}" ]; then set -- --task "$TASK" "$@"; fi
exec "$PYTHON" "$ROOT/LSVCR/finetune.py" "$@"
