#!/usr/bin/env bash
# docs/results.md, "Two larger catalogues": bash scripts/recipes/larger-catalogues.sh FOLDER
# FOLDER holds amazon-games and microlens-50k; run pretraining.sh and item-by-item.sh before.
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

# With a score of what a user has, three seeds; vectors as in repeat-score.sh.
games=(--dataset amazon-games --embedding_dir embedding/repeat-score)
by_item=("${games[@]}" --pooler_type items --item_decay 0.7 --max_token_num 96 --max_attr_length 32 --whiten)
train Recformer "${by_item[@]}" --test_only --run_name zero-shot
train Recformer "${by_item[@]}" --test_only --pretrain_ckpt Recformer/pretrain_ckpt/items-4000.bin --run_name zero-shot-pretrain
train Recformer "${by_item[@]}" --item_bias --repeat_score --user_map --temp 0.12 --batch_size 128 --train_items \
  --fix_word_embedding --lr 5e-5 --head_lr 0.03 --warmup_steps 20 --num_epochs 2 --second_stage_epochs 0 --train_users 6000 \
  --finetune_negative_sample_size 1000 --valid_users 2000 --seed 1 --run_name tuned-seed1
for seed in 1 2 3; do
  for start in none longformer pretrain finetune; do
    whiten=(--init_transform whiten)
    if [ $start = none ]; then whiten=(); fi
    train SASRec "${games[@]}" --init_type $start ${whiten[@]+"${whiten[@]}"} --repeat_score --hidden_units 128 --batch_size 256 \
      --weight_decay 0.1 --lr 2e-3 --schedule linear --warmup_steps 200 --patience 4 --valid_users 10000 --dropout_rate 0.5 \
      --num_epochs 12 --precision bf16-mixed --seed $seed --run_name score-$start-seed$seed
  done
done
compare amazon-games --reference SASRec/score-none --groups score-none score-longformer score-pretrain score-finetune
