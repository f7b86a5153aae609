#!/usr/bin/env bash
# docs/results.md, "A language model inside the recommender": bash scripts/recipes/plmsasrec.sh FOLDER
# FOLDER holds amazon-scientific.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=amazon-scientific
prepare atomic --input "$data/$name" --name $name
prepare cold --dataset $name --name $name-cold

plm() {  # DATASET, RUN, SEED [flags]
  train PLMSASRec --dataset "$1" --run_name "$2-seed$3" --seed "$3" --sasrec_hidden_size 128 --weight_decay 0.3 \
    --temp 0.07 --batch_size 128 --num_epochs 60 --patience 5 "${@:4}"
}
texts=(--pre_inference --tokenized_len 64)
for seed in 1 2 3; do
  plm $name id $seed --input_type id
  for dataset in $name $name-cold; do
    plm $dataset frozen $seed "${texts[@]}"
    plm $dataset frozen-offset $seed "${texts[@]}" --item_offset
  done
done
compare $name
compare $name-cold
