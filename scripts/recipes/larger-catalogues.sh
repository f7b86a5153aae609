#!/usr/bin/env bash
# docs/results.md, "Two larger catalogues": bash scripts/recipes/larger-catalogues.sh FOLDER
# FOLDER holds amazon-games and microlens-50k; run pretraining.sh before.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

prepare_both() {  # NAME, SOURCE [flags]: the whole catalogue, and 6,000 of its users for Recformer
  prepare "${@:2}" --name "$1"
  prepare "${@:2}" --name "$1-6000" --sample_users 6000
}

compare_starts() {  # NAME, tokens that Recformer reads
  local texts=(--max_token_num "$2" --max_attr_length 32) start
  train Recformer --dataset "$1-6000" "${texts[@]}" --lr 1e-4 --warmup_steps 200 --num_epochs 4 \
    --second_stage_epochs 1 --patience 2 --valid_users 1000 --seed 1 --pretrain_ckpt $pretrained
  encode --dataset "$1" "${texts[@]}" --init_type longformer
  encode --dataset "$1" "${texts[@]}" --init_type pretrain --checkpoint $pretrained
  encode --dataset "$1" "${texts[@]}" --init_type finetune \
    --checkpoint "runs/Recformer/$1-6000/pretrain-seed1/checkpoints/best.ckpt"
  baselines "$1"
  local flags=(--dataset "$1" --seed 1 --batch_size 256 --weight_decay 0.1 --lr 2e-3 --schedule linear
    --warmup_steps 200 --patience 4 --valid_users 10000)
  for start in none longformer pretrain finetune; do
    train SASRec "${flags[@]}" --init_type $start --dropout_rate 0.5 --num_epochs 16
    train Bert4Rec "${flags[@]}" --init_type $start --dropout_rate 0.3 --mask_prob 0.5 --num_epochs 20 --eval_every 2
  done
  compare "$1"
}

prepare_both amazon-games atomic --input "$data/amazon-games" --on_missing_text item_id
prepare_both microlens-50k sequences --input "$data/microlens-50k/MicroLens-50k_pairs.tsv" \
  --items "$data/microlens-50k/MicroLens-50k_titles.csv"
compare_starts amazon-games 64
compare_starts microlens-50k 96
