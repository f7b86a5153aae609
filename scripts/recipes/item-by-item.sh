#!/usr/bin/env bash
# Recformer/README.md, "Item by item": bash scripts/recipes/item-by-item.sh FOLDER
# FOLDER holds pretrain-corpus, recformer-tools, amazon-scientific, amazon-games and ml-1m.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare atomic --input "$data/amazon-games" --on_missing_text item_id --name amazon-games
prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
prepare recformer --input "$data/recformer-tools" --name recformer-tools --on_missing_text drop --resplit
tested=(recformer-tools amazon-scientific amazon-games)
bash Recformer/pretraining_corpus.sh "$data/pretrain-corpus" --hold_out arts "${tested[@]}"
by_item=(--pooler_type items --item_decay 0.7 --max_token_num 96 --max_attr_length 32)

for users in 1000 4000 16000; do
  prepare corpus --datasets pretraining-{health,clothing,books,electronics,food-kitchen,sports} --disjoint_from \
    "${tested[@]}" pretraining-arts --on_shared_items drop --sample_users $users --name pretraining-$users
  bash Recformer/lightning_run.sh --dataset pretraining-$users --valid_dataset pretraining-arts --batch_size 64 \
    --domains_apart --fix_word_embedding "${by_item[@]}" --item_decay 0.5 --mlm_weight 0 --dropout 0 --warmup_steps 20 \
    --num_epochs 1 --valid_users 500 --seed 1 --lr 2e-5 --window 8 --run_name items-$users --resume
  "$PYTHON" Recformer/convert_pretrain_ckpt.py --recformer_output_path Recformer/pretrain_ckpt/items-$users.bin \
    --recformerseqrec_output_path Recformer/pretrain_ckpt/items-$users-seqrec.bin \
    --pretrained_ckpt_path runs/Recformer/pretraining-arts/items-$users/checkpoints/best.ckpt
done

zero_shot() {  # DATASET NAME [flags]: with what a user has among the candidates, and without
  local flags=(--dataset "$1" --test_only "${by_item[@]}" --embedding_dir "embedding/$2" "${@:3}")
  train Recformer "${flags[@]}" --run_name "$2"
  train Recformer "${flags[@]}" --filter_seen --run_name "$2-unseen"
}
for dataset in pretraining-arts amazon-scientific amazon-games; do
  zero_shot $dataset longformer-items
  zero_shot $dataset longformer-whitened --whiten
  for users in 1000 4000 16000; do
    zero_shot $dataset items-$users-whitened --whiten --pretrain_ckpt Recformer/pretrain_ckpt/items-$users.bin
  done
done

beside() {  # DATASET [flags]: what texts do not tell, beside a frozen encoder
  train Recformer --dataset "$1" "${by_item[@]}" --freeze_encoder --temp 0.12 --batch_size 128 --warmup_steps 0 "${@:2}"
}
ids() {  # DATASET [flags]
  train SASRec --dataset "$1" --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 --patience 6 "${@:2}"
}
all=(--whiten --item_bias --repeat_score --user_map)
for seed in 42 2 3; do
  beside amazon-scientific "${all[@]}" --num_epochs 16 --seed $seed --run_name beside-seed$seed
done
for seed in 1 2 3; do
  ids amazon-scientific --init_type none --seed $seed
done
beside amazon-scientific "${all[@]}" --num_epochs 8 --run_name all
beside amazon-scientific "${all[@]}" --num_epochs 8 --item_decay 0.5 --run_name decay-0.5
for out in whiten item_bias repeat_score user_map; do
  beside amazon-scientific "${all[@]}" --no_$out --num_epochs 8 --run_name without-$out
done
beside amazon-scientific "${all[@]}" --num_epochs 16 --filter_seen --run_name beside-unseen
beside amazon-scientific "${all[@]}" --num_epochs 8 --pretrain_ckpt Recformer/pretrain_ckpt/items-4000.bin \
  --embedding_dir embedding/items-4000 --run_name beside-items-4000
beside amazon-scientific "${all[@]}" --num_epochs 16 --pretrain_ckpt Recformer/pretrain_ckpt/items-16000.bin \
  --embedding_dir embedding/items-16000 --seed 1 --run_name beside-items-16000
for users in 84 422 1688; do
  beside amazon-scientific "${all[@]}" --num_epochs 16 --train_users $users --run_name beside-$users
  ids amazon-scientific --init_type none --train_users $users --run_name none-$users
  ids amazon-scientific --init_type none --repeat_score --seed 1 --train_users $users --run_name repeat-none-$users
  ids amazon-scientific --init_type longformer --init_transform whiten --repeat_score --seed 1 --train_users $users \
    --run_name repeat-longformer-$users
done
beside amazon-games "${all[@]}" --num_epochs 4 --finetune_negative_sample_size 1000 --valid_users 5000 --run_name beside-seed1
compare amazon-scientific --reference SASRec/none
prepare cold --dataset amazon-scientific --name amazon-scientific-cold
for seed in 1 2 3; do
  beside amazon-scientific-cold "${all[@]}" --num_epochs 16 --seed $seed --run_name cold-seed$seed
done
train Recformer --dataset amazon-scientific-cold --test_only --whiten "${by_item[@]}" --run_name cold-whitened
train Recformer --dataset ml-1m --test_only --whiten "${by_item[@]}" --run_name whitened
