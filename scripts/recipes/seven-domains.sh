#!/usr/bin/env bash
# Recformer/README.md, "What seven domains bring": bash scripts/recipes/seven-domains.sh FOLDER
# FOLDER holds pretrain-corpus, recformer-tools, amazon-scientific, amazon-games and ml-1m.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare atomic --input "$data/amazon-games" --on_missing_text item_id --name amazon-games
prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
prepare recformer --input "$data/recformer-tools" --name recformer-tools --on_missing_text drop --resplit
tested=(recformer-tools amazon-scientific amazon-games)
bash Recformer/pretraining_corpus.sh "$data/pretrain-corpus" --hold_out arts "${tested[@]}"
for users in 4000 12000 22000 50000; do
  prepare corpus --datasets pretraining-{health,clothing,books,electronics,food-kitchen,sports} --disjoint_from \
    "${tested[@]}" pretraining-arts --on_shared_items drop --sample_users $users --name pretraining-$users
done

pretrain() {  # NAME HISTORIES POOLING TOKENS [flags]: converted as Recformer/pretrain_ckpt/NAME.bin
  bash Recformer/lightning_run.sh --dataset "pretraining-$2" --valid_dataset pretraining-arts --batch_size 64 \
    --domains_apart --fix_word_embedding --max_attr_length 32 --mlm_weight 0 --dropout 0 --warmup_steps 20 --num_epochs 1 \
    --valid_users 1000 --seed 1 --precision bf16-mixed --pooler_type "$3" --max_token_num "$4" --run_name "$1" --resume \
    "${@:5}"
  "$PYTHON" Recformer/convert_pretrain_ckpt.py --recformer_output_path "Recformer/pretrain_ckpt/$1.bin" \
    --recformerseqrec_output_path "Recformer/pretrain_ckpt/$1-seqrec.bin" \
    --pretrained_ckpt_path "runs/Recformer/pretraining-arts/$1/checkpoints/best.ckpt"
}
zero_shot() {  # DATASET NAME POOLING TOKENS [flags]: with what a user has among the candidates, and without
  local flags=(--dataset "$1" --test_only --max_attr_length 32 --precision bf16-mixed --pooler_type "$3"
    --max_token_num "$4" --embedding_dir "embedding/$2" "${@:5}")
  train Recformer "${flags[@]}" --run_name "$2"
  train Recformer "${flags[@]}" --filter_seen --run_name "$2-unseen"
}

pretrain mean 12000 mean 96 --lr 1e-4
pretrain recency 12000 recency 96 --lr 5e-5
pretrain recency-32 22000 recency 32 --lr 5e-5
pretrain window-fast 4000 recency 48 --lr 5e-5 --window 8
pretrain window-cold 4000 recency 48 --lr 2e-5 --window 8
pretrain window-4000 4000 recency 48 --lr 2e-5 --window 8 --temp 0.1
pretrain window 50000 recency 48 --lr 2e-5 --window 8 --temp 0.1 --valid_step 200  # published: its second validation
for dataset in pretraining-arts amazon-scientific amazon-games ml-1m; do
  zero_shot $dataset longformer-mean-96 mean 96
  zero_shot $dataset longformer-mean-48 mean 48
  zero_shot $dataset longformer-recency-96 recency 96
  zero_shot $dataset longformer-recency-48 recency 48
  for weights in window-4000 window; do
    zero_shot $dataset $weights recency 48 --pretrain_ckpt Recformer/pretrain_ckpt/$weights.bin
  done
done
compare amazon-scientific --reference Recformer/longformer-recency-48
compare amazon-scientific --reference Recformer/longformer-recency-48-unseen
for seed in 1 2 3; do
  for start in longformer pretrain; do
    train SASRec --dataset amazon-scientific --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 \
      --patience 6 --embedding_dir embedding/window --init_type $start --seed $seed
  done
done
compare amazon-scientific --reference SASRec/longformer
