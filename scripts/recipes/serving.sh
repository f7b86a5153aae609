#!/usr/bin/env bash
# docs/speed.md, the load on the service: bash scripts/recipes/serving.sh FOLDER
# FOLDER holds pretrain-corpus.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

corpus="$data/pretrain-corpus"
for domain in books electronics food-kitchen; do
  times=(--timestamp_column timestamp)
  [ $domain = food-kitchen ] && times=()
  prepare table --input "$corpus/$domain/interactions.parquet" --items "$corpus/$domain/items.parquet" "${times[@]}" \
    --attributes title --name pre-$domain
done
prepare corpus --datasets pre-books pre-electronics pre-food-kitchen --name three-shops
train SASRec --dataset three-shops --loss sampled_softmax --num_negatives 1024 --num_epochs 4 --valid_users 2000 --run_name served
[ -d exports/three-shops ] || "$PYTHON" scripts/export.py runs/SASRec/three-shops/served --output exports/three-shops
"$PYTHON" scripts/benchmarks/serving.py exports/three-shops
"$PYTHON" scripts/benchmarks/serving.py exports/three-shops --clients 64 --seconds 76 --beyond 0
