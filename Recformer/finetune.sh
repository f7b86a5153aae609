#!/usr/bin/env bash
# Two-stage finetuning; the flags after it are passed on: bash Recformer/finetune.sh --dataset demo
# Without flags: a demonstration on a small made-up shop, from pretrain_ckpt/ if convert_pretrain_ckpt.py was run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
if [ $# = 0 ]; then
  set -- --dataset demo-small --max_token_num 64 --max_attr_length 16 --num_epochs 2 --second_stage_epochs 1 --lr 2e-4 --overwrite
  pretrained="$ROOT/Recformer/pretrain_ckpt/seqrec_pretrain_ckpt.bin"
  if [ -f "$pretrained" ]; then set -- "$@" --pretrain_ckpt "$pretrained"; fi
  say_demonstration Recformer/finetune.sh "$@"
fi
exec "$PYTHON" "$ROOT/Recformer/finetune.py" "$@"
