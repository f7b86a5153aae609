#!/usr/bin/env bash
# One PLMSASRec; the flags after it are passed on: bash PLMSASRec/finetune.sh --dataset demo --pre_inference
# Without flags: a demonstration on a small made-up shop, whose frozen language model runs once.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  set -- --dataset demo-small --pre_inference --num_epochs 20 --patience 5 --overwrite
  say_demonstration PLMSASRec/finetune.sh "$@"
fi
exec "$PYTHON" "$ROOT/PLMSASRec/finetune.py" "$@"
