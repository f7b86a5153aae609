#!/usr/bin/env bash
# Recformer/README.md, "What two thinned-out domains brought": bash scripts/recipes/pretraining.sh FOLDER
# FOLDER holds recformer-electronics, recformer-sports, recformer-tools and amazon-scientific.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
for domain in electronics sports tools; do
  prepare recformer --input "$data/recformer-$domain" --name recformer-$domain --on_missing_text drop --resplit
done
prepare corpus --datasets recformer-electronics recformer-sports --disjoint_from recformer-tools amazon-scientific \
  --near_titles 0 --name pretraining
pretrain=(--dataset pretraining --valid_dataset recformer-tools --batch_size 64 --warmup_steps 50 --fix_word_embedding
  --num_epochs 1 --valid_users 2000 --seed 1 --resume)
bash Recformer/lightning_run.sh "${pretrain[@]}" --max_token_num 64 --max_attr_length 16 --lr 1e-4 --valid_step 178
"$PYTHON" Recformer/convert_pretrain_ckpt.py \
  --pretrained_ckpt_path runs/Recformer/recformer-tools/pretraining-on-pretraining-seed1/checkpoints/best.ckpt
for tokens in 64 128; do
  zero_shot=(--dataset amazon-scientific --max_token_num $tokens --max_attr_length 32 --test_only
    --embedding_dir embedding/vectors-$tokens)
  train Recformer "${zero_shot[@]}" --run_name longformer-$tokens
  train Recformer "${zero_shot[@]}" --run_name pretrain-$tokens --pretrain_ckpt $pretrained
done
train Recformer --dataset recformer-tools --max_token_num 64 --max_attr_length 16 --test_only
for start in "--embedding_dir embedding/plain" "--pretrain_ckpt $pretrained"; do
  train Recformer --dataset amazon-scientific --max_token_num 64 --max_attr_length 32 --lr 1e-4 --warmup_steps 500 \
    --num_epochs 8 --second_stage_epochs 1 --patience 2 --valid_users 2000 --seed 1 $start
done
"$PYTHON" scripts/curves.py runs/Recformer/recformer-tools/pretraining-on-pretraining-seed1 --by_time \
  --columns train/contrast train/accuracy valid/NDCG@10 --output assets/pretraining.png
# Gently; the published figures are of its first validation.
bash Recformer/lightning_run.sh "${pretrain[@]}" --max_token_num 128 --max_attr_length 32 --domains_apart --lr 5e-5 \
  --mlm_weight 0.01 --valid_step 179 --run_name gently-seed1
