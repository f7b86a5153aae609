#!/usr/bin/env bash
# One row of the comparison; the flags after it are passed on: bash Bert4Rec/finetune.sh --dataset demo --init_type finetune
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/Bert4Rec/finetune.py" "$@"
