#!/usr/bin/env bash
# Compresses the old events of a run's users into its tokens; the flags are passed on: bash PerSRec/compress.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/PerSRec/compress.py" "$@"
