#!/usr/bin/env bash
# docs/speed.md, "Serving": bash scripts/recipes/serving.sh FOLDER
# FOLDER holds amazon-scientific, amazon-games and pretrain-corpus.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

corpus="$data/pretrain-corpus"
for domain in books electronics food-kitchen; do
  times=(--timestamp_column timestamp)
  [ $domain = food-kitchen ] && times=()
  prepare table --input "$corpus/$domain/interactions.parquet" --items "$corpus/$domain/items.parquet" "${times[@]}" \
    --attributes title --name pre-$domain
done
prepare corpus --datasets pre-books pre-electronics pre-food-kitchen --name three-shops
prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare atomic --input "$data/amazon-games" --on_missing_text item_id --name amazon-games
for name in amazon-scientific amazon-games three-shops; do
  train SASRec --dataset $name --loss sampled_softmax --num_negatives 1024 --num_epochs 4 --valid_users 2000 --run_name served
  [ -d exports/$name ] || "$PYTHON" scripts/export.py runs/SASRec/$name/served --output exports/$name
done
"$PYTHON" scripts/benchmarks/index.py --num_items 1000000
"$PYTHON" scripts/benchmarks/serving.py exports/three-shops
"$PYTHON" scripts/benchmarks/serving.py exports/three-shops --clients 64 --seconds 120 --beyond 0
