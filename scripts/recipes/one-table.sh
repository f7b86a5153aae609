#!/usr/bin/env bash
# docs/results.md, "One table": bash scripts/recipes/one-table.sh FOLDER [flags of scripts/one_table.py]
# FOLDER holds amazon-scientific, microlens-50k, ml-1m and, if there is to be a `pretrain`, pretrain-corpus. With --plan it says what it takes, and trains nothing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare sequences --input "$data/microlens-50k/MicroLens-50k_pairs.tsv" \
  --items "$data/microlens-50k/MicroLens-50k_titles.csv" --name microlens-50k
prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
if [ -d "$data/pretrain-corpus" ]; then  # for what starts from `pretrain`
  bash Recformer/pretraining_corpus.sh "$data/pretrain-corpus" --hold_out arts amazon-scientific microlens-50k ml-1m
fi
"$PYTHON" scripts/one_table.py --datasets amazon-scientific microlens-50k ml-1m "${@:2}"
