#!/usr/bin/env bash
# docs/results.md, "Without a score of what a user has": bash scripts/recipes/amazon-scientific.sh FOLDER
# FOLDER holds amazon-scientific; run pretraining.sh before. † is plain-finetune, Recformer without the pretraining.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
baselines $name
train Recformer --dataset $name --max_token_num 64 --max_attr_length 32 --lr 1e-4 --warmup_steps 500 --num_epochs 8 \
  --second_stage_epochs 1 --patience 2 --valid_users 2000 --seed 1 --pretrain_ckpt $pretrained
train Recformer --dataset $name --max_token_num 128 --lr 1.5e-4 --warmup_steps 100 --num_epochs 5 \
  --second_stage_epochs 2 --seed 42 --embedding_dir embedding/plain
sasrec=(SASRec --dataset $name --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 --patience 6)
bert4rec=(Bert4Rec --dataset $name --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.1 --mask_prob 0.5 --lr 2e-3
  --batch_size 64 --num_epochs 100 --patience 15)
for seed in 1 2 3; do
  for start in none longformer pretrain finetune; do
    train "${sasrec[@]}" --init_type $start --seed $seed
    train "${bert4rec[@]}" --init_type $start --seed $seed
  done
  plain=(--embedding_dir embedding/plain --init_type finetune --seed $seed --run_name plain-finetune-seed$seed)
  train "${sasrec[@]}" "${plain[@]}"
  train "${bert4rec[@]}" "${plain[@]}"
done
compare $name
"$PYTHON" scripts/sweep.py SASRec --name from-finetune --trials 3 \
  --search lr=5e-4..2e-3:log dropout_rate=0.4..0.6 weight_decay=0.1..0.5 \
  --flags "--dataset $name --embedding_dir embedding/plain --init_type finetune --seed 1 --hidden_units 128 \
  --num_epochs 60 --patience 6" \
  --arms "--init_mode residual --loss sampled_softmax" "--init_mode residual --loss ce" \
  "--init_transform none --loss ce" "--init_transform none --temp 0.07" "--init_mode residual --block ligr"
