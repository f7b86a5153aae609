#!/usr/bin/env bash
# Recformer/README.md, "How fresh the item table must be": bash scripts/recipes/freshness.sh FOLDER
# FOLDER holds amazon-scientific. Some two hours of one thread for both seeds.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
run() {  # NAME SEED flags
  train Recformer --dataset $name --pooler_type items --item_decay 0.7 --max_token_num 96 --max_attr_length 32 --whiten \
    --item_bias --repeat_score --user_map --temp 0.12 --fix_word_embedding --train_users 844 --batch_size 64 \
    --num_epochs 3 --second_stage_epochs 0 --lr 5e-5 --head_lr 0.03 --warmup_steps 5 --seed "$2" \
    --embedding_dir "embedding/refresh-$1-$2" --run_name "refresh-$1-seed$2" "${@:3}"
}
for seed in 1 2; do
  run never $seed --item_refresh never
  run epoch $seed --item_refresh epoch
  run 4 $seed --item_refresh steps:4
  run 1 $seed --item_refresh steps:1
  run own $seed --train_items
done
compare $name --reference Recformer/refresh-never
compare $name --reference Recformer/refresh-never --seen left_out
