#!/usr/bin/env bash
# Runs a frozen language model over a dataset's items once; the flags are passed on: bash PLMSASRec/preinference.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/PLMSASRec/preinference.py" "$@"
