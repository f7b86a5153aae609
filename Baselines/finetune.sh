#!/usr/bin/env bash
# One baseline's row of the comparison; the flags after it are passed on: bash Baselines/finetune.sh --dataset demo
# Without flags: a demonstration on a small made-up shop.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  set -- --dataset demo-small --overwrite
  say_demonstration Baselines/finetune.sh "$@"
fi
exec "$PYTHON" "$ROOT/Baselines/finetune.py" "$@"
