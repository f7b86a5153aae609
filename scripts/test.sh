#!/usr/bin/env bash
# Makes the environment and runs every check: bash scripts/test.sh [arguments of pytest]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
bash "$ROOT/scripts/setup.sh"
cd "$ROOT"
"$PYTHON" -m ruff format --check .
"$PYTHON" -m ruff check .
"$PYTHON" -m mypy --strict --allow-untyped-calls --allow-subclassing-any
# One thread per worker: two workers with two threads each would wait for one another.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n "${WORKERS:-auto}" "$@"
