#!/usr/bin/env bash
# docs/results.md, "A language model inside the recommender": bash scripts/recipes/plmsasrec.sh FOLDER
# FOLDER holds amazon-scientific and microlens-50k.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
prepare cold --dataset $name --name $name-cold
encode --dataset $name --init_type longformer --max_token_num 128

plm() {  # DATASET, RUN, SEED [flags]
  train PLMSASRec --dataset "$1" --run_name "$2-seed$3" --seed "$3" --sasrec_hidden_size 128 --weight_decay 0.3 \
    --batch_size 128 --num_epochs 60 --patience 5 "${@:4}"
}
texts=(--pre_inference --tokenized_len 64 --temp 0.07)
sasrec=(SASRec --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 --patience 6)
for seed in 1 2 3; do
  plm $name id $seed --input_type id
  plm $name frozen $seed "${texts[@]}"
  plm $name frozen-offset $seed "${texts[@]}" --item_offset
  for start in none longformer; do train "${sasrec[@]}" --dataset $name --init_type $start --seed $seed; done
done

# Ways to train the language model itself.
offset=("${texts[@]}" --item_offset)
linear=("${offset[@]}" --schedule linear --sasrec_hidden_dropout 0.3 --sasrec_attention_dropout 0.3)
runs=runs/PLMSASRec/$name
for seed in 1 2 3; do
  plm $name offset-linear $seed "${linear[@]}" --num_epochs 20 --patience 6 --export_name linear-seed$seed
  plm $name offset-last1 $seed "${linear[@]}" --schedule constant --num_epochs 1 --batch_size 256 --lr 1e-4 --plm_lr 1e-5 \
    --plm_last_n_unfreeze 1 --start_from $runs/offset-linear-seed$seed
done
for seed in 1 2 3; do train "${sasrec[@]}" --dataset $name --init_type plm-linear-seed1 --seed $seed; done
way() {  # RUN [flags]: one epoch from frozen-offset on
  plm $name "$1" 1 --tokenized_len 64 --temp 0.07 --item_offset --num_epochs 1 --batch_size 256 --lr 3e-4 --plm_lr 3e-5 \
    --start_from $runs/frozen-offset-seed1 "${@:2}"
}
way go --pre_inference
way last1 --pre_inference --plm_last_n_unfreeze 1
way last2 --pre_inference --plm_last_n_unfreeze 2
way lora --pre_inference --plm_last_n_unfreeze 2 --lora_r 8
way prompt --use_prompt --pre_seq_len 8
way all --plm_last_n_unfreeze -1
plm $name smollm2 1 "${offset[@]}" --plm_name smollm2
plm $name smollm2-last1 1 "${offset[@]}" --plm_name smollm2 --plm_last_n_unfreeze 1 --num_epochs 1 --batch_size 256 --lr 1e-4 \
  --plm_lr 1e-5 --start_from $runs/smollm2-seed1
plm $name smollm2-last 1 "${offset[@]}" --plm_name smollm2 --pooling_method last
for seed in 1 2 3; do
  plm $name-cold frozen $seed "${texts[@]}"
  plm $name-cold frozen-offset $seed "${texts[@]}" --item_offset
  plm $name-cold offset-linear $seed "${linear[@]}" --num_epochs 20 --patience 6
done
compare $name --reference SASRec/longformer
compare $name-cold

# A larger catalogue, with the budget of larger-catalogues.sh.
name=microlens-50k
prepare sequences --input "$data/$name/MicroLens-50k_pairs.tsv" --items "$data/$name/MicroLens-50k_titles.csv" --name $name
encode --dataset $name --max_token_num 96 --max_attr_length 32 --init_type longformer
budget=(--dataset $name --seed 1 --batch_size 256 --weight_decay 0.1 --lr 2e-3 --schedule linear --warmup_steps 200
  --patience 4 --valid_users 10000 --num_epochs 16)
train SASRec "${budget[@]}" --init_type longformer --dropout_rate 0.5
train PLMSASRec "${budget[@]}" "${offset[@]}" --run_name frozen-offset-seed1
train PLMSASRec "${budget[@]}" "${offset[@]}" --run_name offset-fast-seed1 --offset_lr 2e-3 --sasrec_hidden_dropout 0.3 \
  --sasrec_attention_dropout 0.3
compare $name --reference SASRec/longformer
