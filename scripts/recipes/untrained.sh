#!/usr/bin/env bash
# docs/results.md, "Without training": bash scripts/recipes/untrained.sh FOLDER
# FOLDER holds amazon-scientific, amazon-games, microlens-50k and ml-1m.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

vectors() { "$PYTHON" Baselines/encode.py --dataset "$@"; }  # NAME [flags]
both() {  # FAMILY, DATASET, RUN [flags]: among all items, and among those that the user has not had
  train "$1" --dataset "$2" --run_name "$3" "${@:4}"
  train "$1" --dataset "$2" --run_name "$3-unseen" --filter_seen "${@:4}"
}

prepare atomic --input "$data/amazon-scientific" --name amazon-scientific
prepare atomic --input "$data/amazon-games" --on_missing_text item_id --name amazon-games
prepare sequences --input "$data/microlens-50k/MicroLens-50k_pairs.tsv" \
  --items "$data/microlens-50k/MicroLens-50k_titles.csv" --name microlens-50k
prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
for name in amazon-scientific amazon-games microlens-50k ml-1m; do
  most=(--valid_users 2000)  # who choose the half-life
  for baseline in popularity recency item-knn text-knn rules; do
    both Baselines $name $baseline --baseline $baseline "${most[@]}"
  done
  vectors $name
  vectors $name --encoder minilm
  for text in tfidf minilm; do both Baselines $name vectors-$text --baseline vectors --init_type $text "${most[@]}"; done
done

# Encoders, alone and as the start of SASRec.
name=amazon-scientific
for pooling in mean last; do
  vectors $name --encoder smollm2 --pooling $pooling --max_length 64
  train Baselines --dataset $name --baseline vectors --init_type smollm2-$pooling
done
train Baselines --dataset $name --baseline vectors --init_type minilm --user_as text --max_his_len 3 --valid_users 500
sasrec=(--hidden_units 128 --dropout_rate 0.5 --weight_decay 0.3 --num_epochs 60 --patience 6)
for seed in 1 2 3; do
  for text in none tfidf minilm smollm2-mean smollm2-last; do
    train SASRec --dataset $name --run_name sasrec-$text-seed$seed "${sasrec[@]}" --init_type $text --seed $seed
  done
done
for text in none tfidf minilm; do
  train SASRec --dataset $name --run_name sasrec-$text-unseen "${sasrec[@]}" --init_type $text --seed 1 --filter_seen
done
larger=(--batch_size 256 --weight_decay 0.1 --lr 2e-3 --schedule linear --warmup_steps 200 --patience 4 --valid_users 10000
  --dropout_rate 0.5 --num_epochs 16 --seed 1 --filter_seen)
for shop in amazon-games microlens-50k; do
  for text in none tfidf; do train SASRec --dataset $shop --run_name sasrec-$text-unseen "${larger[@]}" --init_type $text; done
done
"$PYTHON" scripts/export.py runs/SASRec/amazon-games/sasrec-none-unseen --output exports/games

# A language model's ranking of 20 titles, and what others make of the same.
"$PYTHON" Baselines/ask.py --dataset $name --run_name ask-gain --resume
"$PYTHON" Baselines/ask.py --dataset $name --way list --test_users 50 --run_name ask-list --resume
for baseline in popularity item-knn text-knn; do
  train Baselines --dataset $name --baseline $baseline --sample_size 19 --run_name $baseline-19
done
train Baselines --dataset $name --baseline vectors --init_type minilm --sample_size 19 --run_name vectors-minilm-19
for text in none tfidf; do
  train SASRec --dataset $name --run_name sasrec-$text-19 "${sasrec[@]}" --init_type $text --seed 1 --sample_size 19
done
for name in amazon-scientific amazon-games microlens-50k ml-1m; do compare $name; done
for shop in amazon-games microlens-50k; do
  compare $shop --reference SASRec/sasrec-none-unseen --output_dir runs/compare/$shop-unseen
done
compare amazon-scientific --reference Baselines/ask-gain --output_dir runs/compare/amazon-scientific-ask
