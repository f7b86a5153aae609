#!/usr/bin/env bash
# One baseline's row of the comparison; the flags after it are passed on: bash Baselines/finetune.sh --dataset demo
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/Baselines/finetune.py" "$@"
