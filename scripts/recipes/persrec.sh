#!/usr/bin/env bash
# docs/results.md, "Long histories in a few tokens" and "HLLM": bash scripts/recipes/persrec.sh FOLDER
# FOLDER holds ml-1m and amazon-scientific. Some ten hours on one thread.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

persrec() { train PerSRec --dataset "$1" --run_name "$2-seed$3" --seed "$3" "${@:4}"; }  # DATASET, RUN, SEED [flags]
worth() {  # DATASET, RUN: what its tokens are worth
  bash PerSRec/compress.sh "runs/PerSRec/$1/$2" --histories test
  for tokens in own other zero; do bash PerSRec/evaluate.sh "runs/PerSRec/$1/$2" --from_cache --tokens $tokens; done
}

# Made-up users: half of the targets come from interests that only old events show, or none.
small=(--model hstu --hidden_units 64 --n_layers 2 --dropout_rate 0.2 --batch_size 64 --lr 2e-3 --schedule linear
  --num_epochs 30 --patience 6 --no_data_split)
for share in 0.5 0; do
  name=interests-$share
  prepare interests --share $share --name $name
  for seed in 1 2 3; do
    persrec $name recent $seed "${small[@]}" --maxlen 32
    persrec $name k4 $seed "${small[@]}" --maxlen 128 --number_of_user_tokens 4 --pretrain_item_num 96
    persrec $name full $seed "${small[@]}" --maxlen 128
    persrec $name mean $seed "${small[@]}" --maxlen 128 --number_of_user_tokens 1 --pretrain_item_num 96 --compressor mean
    worth $name k4-seed$seed
  done
  compare $name --reference PerSRec/recent
done

# MovieLens-1M: 150 old films and 50 recent ones.
prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
films=(--model hstu --hidden_units 128 --n_heads 2 --dropout_rate 0.2 --batch_size 32 --schedule linear --warmup_steps 400
  --lr 1e-3 --num_epochs 25 --patience 8 --filter_seen)
for seed in 1 2 3; do
  persrec ml-1m recent $seed "${films[@]}" --maxlen 50
  persrec ml-1m k4 $seed "${films[@]}" --maxlen 200 --no_data_split --number_of_user_tokens 4 --pretrain_item_num 150
  persrec ml-1m full $seed "${films[@]}" --maxlen 200 --no_data_split
  worth ml-1m k4-seed$seed
done
compare ml-1m --reference PerSRec/recent

# HLLM: MiniLM reads the items, a small Llama or HSTU the histories.
name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
texts=(--input_type text --tokenized_len 64 --maxlen 50 --hidden_units 128 --temp 0.07 --weight_decay 0.3 --batch_size 128
  --schedule linear --num_epochs 20 --patience 6 --pre_inference)
persrec $name hllm-d3 1 "${texts[@]}" --model llama --dropout_rate 0.3 --attn_dropout_prob 0.3 --item_offset
persrec $name hllm-d5 1 "${texts[@]}" --model llama --dropout_rate 0.5 --attn_dropout_prob 0.5 --item_offset
persrec $name hllm-plain 1 "${texts[@]}" --model llama --dropout_rate 0.3 --attn_dropout_prob 0.3
persrec $name hstu-text 1 "${texts[@]}" --model hstu --dropout_rate 0.3 --item_offset
persrec $name hllm-last1 1 "${texts[@]}" --model llama --dropout_rate 0.5 --attn_dropout_prob 0.5 --item_offset \
  --schedule constant --num_epochs 1 --batch_size 256 --lr 1e-4 --plm_lr 1e-5 --plm_last_n_unfreeze 1 --item_emb_token_n 0 \
  --start_from runs/PerSRec/$name/hllm-d5-seed1
compare $name --families PerSRec
