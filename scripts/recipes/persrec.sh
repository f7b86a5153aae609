#!/usr/bin/env bash
# docs/results.md, "HLLM": bash scripts/recipes/persrec.sh FOLDER
# FOLDER holds amazon-scientific.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

persrec() { train PerSRec --dataset "$1" --run_name "$2-seed$3" --seed "$3" "${@:4}"; }  # DATASET, RUN, SEED [flags]
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
# SmolLM2 in MiniLM's place, frozen, then its last block trained, or updated with a low rank.
smollm2=("${texts[@]}" --model llama --dropout_rate 0.5 --attn_dropout_prob 0.5 --item_offset --plm_name smollm2)
persrec $name smollm2 1 "${smollm2[@]}"
last=("${smollm2[@]}" --schedule constant --num_epochs 1 --batch_size 64 --lr 1e-4 --plm_last_n_unfreeze 1
  --item_emb_token_n 0 --start_from runs/PerSRec/$name/smollm2-seed1)
persrec $name smollm2-last1 1 "${last[@]}" --plm_lr 1e-5
persrec $name smollm2-lora 1 "${last[@]}" --plm_lr 1e-4 --lora_r 8
compare $name --families PerSRec
