#!/usr/bin/env bash
# One row of the comparison; the flags after it are passed on: bash PerSRec/finetune.sh --dataset demo --model hstu
# Without flags: a demonstration on a small made-up shop, with the old half of a history compressed into two tokens.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  set -- --dataset demo-small --maxlen 12 --number_of_user_tokens 2 --pretrain_item_num 6 --num_epochs 20 --patience 5 --overwrite
  say_demonstration PerSRec/finetune.sh "$@"
fi
exec "$PYTHON" "$ROOT/PerSRec/finetune.py" "$@"
