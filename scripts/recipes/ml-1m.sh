#!/usr/bin/env bash
# docs/results.md, "MovieLens-1M": bash scripts/recipes/ml-1m.sh FOLDER
# FOLDER holds ml-1m, with ml-1m_user_sequences.txt and movies.dat.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
baselines ml-1m --filter_seen
flags=(--dataset ml-1m --filter_seen --maxlen 200 --hidden_units 128 --num_heads 2 --dropout_rate 0.2 --batch_size 32
  --schedule linear --warmup_steps 400 --patience 8)
for seed in 1 2 3; do train SASRec "${flags[@]}" --lr 2e-3 --num_epochs 40 --seed $seed; done
train Bert4Rec "${flags[@]}" --mask_prob 0.3 --lr 1e-3 --num_epochs 80 --eval_every 2 --seed 1
compare ml-1m
