#!/usr/bin/env bash
# Tests a run again, its old events from the memory of compress.sh: bash PerSRec/evaluate.sh RUN --from_cache
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
exec "$PYTHON" "$ROOT/PerSRec/evaluate.py" "$@"
