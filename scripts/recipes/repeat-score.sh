#!/usr/bin/env bash
# docs/results.md, Amazon Industrial & Scientific: bash scripts/recipes/repeat-score.sh FOLDER
# FOLDER holds amazon-scientific; run item-by-item.sh before, which pretrains on 4,000 users.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
for baseline in popularity recency item-knn rules text-knn; do train Baselines --dataset $name --baseline $baseline; done
alone() { train Baselines "${vectors[@]}" --baseline vectors --init_type "$1"; }

# Item vectors: MiniLM's (longformer), those after pretraining and after finetuning, TF-IDF, and it beside MiniLM's.
vectors=(--dataset $name --embedding_dir embedding/repeat-score)
by_item=("${vectors[@]}" --pooler_type items --item_decay 0.7 --max_token_num 96 --max_attr_length 32 --whiten)
learnt=(--item_bias --repeat_score --user_map --temp 0.12 --batch_size 128)
train Recformer "${by_item[@]}" --test_only --run_name zero-shot
train Recformer "${by_item[@]}" --test_only --pretrain_ckpt Recformer/pretrain_ckpt/items-4000.bin --run_name zero-shot-pretrain
train Recformer "${by_item[@]}" "${learnt[@]}" --train_items --fix_word_embedding --lr 5e-5 --head_lr 0.03 \
  --warmup_steps 20 --num_epochs 2 --second_stage_epochs 0 --seed 1 --run_name tuned-seed1
tuned=runs/Recformer/$name/tuned-seed1/checkpoints/best.ckpt
train Recformer "${by_item[@]}" "${learnt[@]}" --pretrain_ckpt $tuned --freeze_encoder --warmup_steps 0 --num_epochs 16 \
  --seed 1 --embedding_dir embedding/tuned --run_name frozen-tuned-seed1
"$PYTHON" Baselines/encode.py "${vectors[@]}"
"$PYTHON" Baselines/encode.py "${vectors[@]}" --beside longformer
for text in longformer pretrain finetune tfidf tfidf-longformer; do alone $text; done

for seed in 1 2 3; do
  train Recformer "${by_item[@]}" "${learnt[@]}" --freeze_encoder --warmup_steps 0 --num_epochs 16 --seed $seed \
    --run_name frozen-seed$seed
  sasrec=(SASRec "${vectors[@]}" --repeat_score --seed $seed --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3
    --num_epochs 60 --patience 6)
  bert4rec=(Bert4Rec "${vectors[@]}" --repeat_score --seed $seed --hidden_units 128 --dropout_rate 0.5
    --weight_decay 0.1 --mask_prob 0.5 --lr 2e-3 --batch_size 64 --num_epochs 100 --patience 15)
  train "${sasrec[@]}" --init_type none
  train "${sasrec[@]}" --init_type none --no_repeat_score --run_name plain-none-seed$seed
  train "${bert4rec[@]}" --init_type none
  for start in longformer pretrain finetune; do
    train "${sasrec[@]}" --init_type $start --init_transform whiten
    train "${bert4rec[@]}" --init_type $start --init_transform whiten
  done
  train "${sasrec[@]}" --init_type longformer --run_name standardised-seed$seed
  train "${sasrec[@]}" --init_type tfidf
  train "${sasrec[@]}" --init_type tfidf-longformer
done
compare $name
compare $name --seen left_out --output_dir runs/compare/$name-left-out
compare $name --reference SASRec/none --output_dir runs/compare/$name-to-none
