#!/usr/bin/env bash
# docs/results.md, "Amazon 2014 Beauty": bash scripts/recipes/beauty.sh FOLDER
# FOLDER holds s3rec/Beauty.txt.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare sequences --input "$data/s3rec/Beauty.txt" --name beauty
baselines beauty --filter_seen
train SASRec --dataset beauty --filter_seen --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 \
  --num_epochs 40 --patience 4 --seed 1
compare beauty
