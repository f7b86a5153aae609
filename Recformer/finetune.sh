#!/usr/bin/env bash
# Two-stage finetuning; the flags after it are passed on: bash Recformer/finetune.sh --dataset demo
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/Recformer/finetune.py" "$@"
