#!/usr/bin/env bash
# docs/results.md, "Items that nobody has bought yet": bash scripts/recipes/cold-items.sh FOLDER
# FOLDER holds amazon-scientific.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=amazon-scientific-cold
prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare cold --dataset amazon-scientific --name $name
encode --dataset $name --init_type longformer --max_token_num 128
baselines $name
sasrec=(SASRec --dataset $name --hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 --patience 6 --seed 1)
train "${sasrec[@]}"
train "${sasrec[@]}" --init_type longformer
train "${sasrec[@]}" --init_type longformer --init_mode adapter --run_name adapter-seed1
compare $name
