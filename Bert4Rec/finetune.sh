#!/usr/bin/env bash
# One row of the comparison; the flags after it are passed on: bash Bert4Rec/finetune.sh --dataset demo --init_type finetune
# Without flags: a demonstration on a small made-up shop, from Recformer's item vectors if its finetune.sh was run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  if [ -f "$ROOT/embedding/demo-small/finetune.npy" ]; then init_type=finetune; else init_type=none; fi
  set -- --dataset demo-small --init_type "$init_type" --num_epochs 40 --patience 5 --mask_prob 0.5 --batch_size 32 --lr 3e-3 --overwrite
  say_demonstration Bert4Rec/finetune.sh "$@"
fi
exec "$PYTHON" "$ROOT/Bert4Rec/finetune.py" "$@"
