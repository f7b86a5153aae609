#!/usr/bin/env bash
# docs/results.md, "How vectors enter": bash scripts/recipes/vectors-study.sh FOLDER
# FOLDER holds amazon-scientific and ml-100k.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

study() {  # NAME, flags of every run
  encode --dataset "$1" --init_type longformer
  "$PYTHON" scripts/sweep.py SASRec --name "study-$1" --trials 3 --workers 2 --flags "--dataset $1 --seed 1 $2" \
    --arms "--init_type none" "--init_type longformer --init_transform none" \
    "--init_type longformer --init_transform standardise" "--init_type longformer --init_mode frozen" \
    "--init_type longformer --init_mode residual" "--init_type longformer --init_mode adapter" \
    --columns "--loss ce" "--loss sampled_softmax" "--loss bce" --search lr=5e-4..3e-3:log dropout_rate=0.2..0.6
}

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare atomic --input "$data/ml-100k" --items "$data/ml-100k/u.item" --name ml-100k
baselines ml-100k --filter_seen
export OMP_NUM_THREADS=1
study amazon-scientific "--num_epochs 40 --patience 5 --weight_decay 0.3"
study ml-100k "--filter_seen --num_epochs 60 --patience 6 --batch_size 32 --weight_decay 0.1"
"$PYTHON" scripts/sweep_table.py runs/sweeps/study-amazon-scientific/best.json runs/sweeps/study-ml-100k/best.json \
  --rows random raw standardised frozen residual adapter --columns softmax sampled BCE \
  --titles amazon-scientific ml-100k --output assets/study.png
