#!/usr/bin/env bash
# Pretraining; the flags after it are passed on: bash Recformer/lightning_run.sh --dataset pretraining --valid_dataset tools
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/Recformer/pretrain.py" "$@"
