#!/usr/bin/env bash
# Pretraining; the flags after it are passed on: bash Recformer/lightning_run.sh --dataset pretraining --valid_dataset tools
# Without flags: a demonstration on one small made-up shop, validated on another, by DeepSpeed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  set -- --dataset demo-small --valid_dataset demo-other --max_token_num 64 --max_attr_length 16 --num_epochs 1 \
    --strategy deepspeed_stage_2 --overwrite
  say_demonstration Recformer/lightning_run.sh "$@"
fi
exec "$PYTHON" "$ROOT/Recformer/pretrain.py" "$@"
