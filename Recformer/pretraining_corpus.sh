#!/usr/bin/env bash
# Prepare the domains of a folder, and join them as the dataset `pretraining`:
#   bash Recformer/pretraining_corpus.sh FOLDER [--hold_out DOMAIN] [NAME ...]
# FOLDER holds a folder for each domain, with interactions.parquet (user_id, item_id, and timestamp, or the rows in order)
# and items.parquet (item_id, title). NAMEs are prepared datasets that a model will be tested on: items that the corpus
# shares with them are left out. DOMAIN is prepared, but not joined: validate on it. The cards say which domains are worth
# reading.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
usage="usage: bash Recformer/pretraining_corpus.sh FOLDER [--hold_out DOMAIN] [NAME ...]"
folder="${1:?$usage}"
shift
held_out=""
if [ "${1:-}" = --hold_out ]; then
  held_out="${2:?$usage}"
  [ -d "$folder/$held_out" ] || { echo "--hold_out $held_out: $folder holds no such domain: $usage" >&2; exit 2; }
  shift 2
  set -- "$@" "pretraining-$held_out"
fi
domains=()
for events in "$folder"/*/interactions.parquet; do
  [ -f "$events" ] || { echo "$folder holds no domain with interactions.parquet: $usage" >&2; exit 2; }
  domain="$(basename "$(dirname "$events")")" times=()
  if "$PYTHON" -c 'import sys, polars; sys.exit("timestamp" not in polars.read_parquet_schema(sys.argv[1]))' "$events"; then
    times=(--timestamp_column timestamp)
  fi
  "$PYTHON" "$ROOT/scripts/prepare.py" table --input "$events" --items "$(dirname "$events")/items.parquet" \
    --attributes title "${times[@]}" --name "pretraining-$domain"
  [ "$domain" = "$held_out" ] || domains+=("pretraining-$domain")
done
[ $# = 0 ] || set -- --disjoint_from "$@" --on_shared_items drop
exec "$PYTHON" "$ROOT/scripts/prepare.py" corpus --datasets "${domains[@]}" "$@" --name pretraining
