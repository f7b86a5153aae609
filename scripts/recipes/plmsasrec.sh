#!/usr/bin/env bash
# docs/results.md, "A language model inside the recommender": bash scripts/recipes/plmsasrec.sh FOLDER
# FOLDER holds amazon-scientific.
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
for seed in 1 2 3; do
  plm $name-cold frozen $seed "${texts[@]}"
  plm $name-cold frozen-offset $seed "${texts[@]}" --item_offset
done
compare $name
compare $name-cold
