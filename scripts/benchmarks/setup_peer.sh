#!/usr/bin/env bash
# Makes the environment of a library that scripts/benchmarks/speed.py measures beside ours: bash scripts/benchmarks/setup_peer.sh rectools|recbole
# It lies in .venv-peers/<peer>, has the same torch as .venv, and is never imported by the project. Idempotent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

peer=${1:-}
case $(tr '[:upper:]' '[:lower:]' <<< "$peer") in
  rectools) peer=rectools packages=("rectools[torch]==0.19.0") ;;
  recbole)  # with the libraries that it still knows
    peer=recbole packages=(recbole==1.2.1 "setuptools<81" numpy==1.26.4 pandas==2.2.3 scipy==1.13.1 ray kmeans_pytorch) ;;
  *) echo "setup_peer.sh: no peer ${peer:+named $peer}; use: bash scripts/benchmarks/setup_peer.sh rectools|recbole" >&2; exit 2 ;;
esac
bash scripts/setup.sh
packages+=("$(.venv/bin/python -c 'import torch; print("torch==" + torch.__version__.partition("+")[0])')")

folder=.venv-peers/$peer
stamp=$folder/.packages
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${packages[*]}" ] && "$folder/bin/python" -c '' 2>/dev/null; then exit 0; fi
echo "setup_peer.sh: installing ${packages[*]} into $folder (a few minutes)"
rm -rf "$folder"
.venv/bin/python -m venv "$folder"
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet "${packages[@]}"
"$folder/bin/python" -m pip check --disable-pip-version-check
echo "${packages[*]}" > "$stamp"
