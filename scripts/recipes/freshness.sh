#!/usr/bin/env bash
# Recformer/README.md, "How fresh the item table must be": bash scripts/recipes/freshness.sh FOLDER
# FOLDER holds amazon-scientific. Some two hours of one thread for both seeds.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
run() {  # NAME SEED flags
  train Recformer --dataset $name --pooler_type items --item_decay 0.7 --max_token_num 96 --max_attr_length 32 --whiten \
    --item_bias --repeat_score --user_map --temp 0.12 --train_users 844 --batch_size 64 --seed "$2" \
    --embedding_dir "embedding/refresh-$1-$2" --run_name "refresh-$1-seed$2" "${@:3}"
}
tuned() { run "$@" --fix_word_embedding --num_epochs 3 --second_stage_epochs 0 --lr 5e-5 --head_lr 0.03 --warmup_steps 5; }
for seed in 1 2; do
  run frozen $seed --freeze_encoder --num_epochs 16 --warmup_steps 0
  tuned never $seed --item_refresh never
  tuned epoch $seed --item_refresh epoch
  tuned steps-4 $seed --item_refresh steps:4
  tuned steps-1 $seed --item_refresh steps:1
  tuned own $seed --train_items
done
compare $name --reference Recformer/refresh-never
compare $name --reference Recformer/refresh-never --seen left_out
