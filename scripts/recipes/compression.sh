#!/usr/bin/env bash
# docs/results.md, "Long histories in a few tokens": bash scripts/recipes/compression.sh FOLDER
# FOLDER holds ml-1m and complete-journey.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

run() { train PerSRec --dataset "$1" --run_name "$2-seed$3" --seed "$3" "${@:4}"; }  # DATASET, RUN, SEED [flags]
tokens() {  # DATASET, RUN, SKIPPED ...: what tokens are worth, and what it costs when they are old
  local folder="runs/PerSRec/$1/$2" other skipped
  bash PerSRec/compress.sh "$folder" --histories test
  for other in own other zero; do bash PerSRec/evaluate.sh "$folder" --from_cache --tokens "$other"; done
  for skipped in "${@:3}"; do
    bash PerSRec/compress.sh "$folder" --histories test --skipped "$skipped" --output "$folder/memory-$skipped"
    bash PerSRec/evaluate.sh "$folder" --from_cache --memory "$folder/memory-$skipped"
  done
}
three() {  # DATASET, S, P, sequences of S events in a batch, as many of S - P, SEED [flags]: runs of equal steps
  local full=(--maxlen "$2" --batch_size "$4") recent=(--maxlen $(($2 - $3)) --batch_size "$5")
  run "$1" full "$6" "${@:7}" "${full[@]}"
  run "$1" k4 "$6" "${@:7}" "${full[@]}" --number_of_user_tokens 4 --pretrain_item_num "$3"
  run "$1" recent "$6" "${@:7}" "${recent[@]}"
}
study() {  # DATASET, S, P, sequences of S events in a batch, as many of S - P [flags]: three seeds, and other compressors
  local name=$1 flags=("${@:6}") seed k
  local full=(--maxlen "$2" --batch_size "$4")
  for seed in 1 2 3; do three "${@:1:5}" $seed "${flags[@]}"; done
  for k in 1 16; do
    run "$name" k$k 1 "${flags[@]}" "${full[@]}" --number_of_user_tokens $k --pretrain_item_num "$3"
  done
  run "$name" mean 1 "${flags[@]}" "${full[@]}" --number_of_user_tokens 1 --pretrain_item_num "$3" --compressor mean
}
common=(--model hstu --n_heads 2 --dropout_rate 0.2 --schedule linear --lr 1e-3 --num_epochs 10 --patience 5)

prepare sequences --input "$data/ml-1m/ml-1m_user_sequences.txt" --items "$data/ml-1m/movies.dat" --name ml-1m
study ml-1m 200 150 8 32 "${common[@]}" --hidden_units 128 --warmup_steps 400 --filter_seen
for seed in 1 2 3; do tokens ml-1m k4-seed$seed 10 25 50; done
for run in k1 k16 mean; do tokens ml-1m $run-seed1; done

# A grocer's baskets: products of one text are one item.
source="$data/complete-journey"
prepare table --input "$source/interactions.parquet" --timestamp_column timestamp --items "$source/items.parquet" \
  --id_column item_id --merge_by text_id --attributes title,text --name complete-journey
latest=(--item_start_position -402)  # every model is trained and tested on each user's last 402 events alone
baselines complete-journey "${latest[@]}"
train Baselines --dataset complete-journey --baseline favourites "${latest[@]}"
flags=("${common[@]}" "${latest[@]}" --hidden_units 64 --warmup_steps 400 --loss sampled_softmax --num_negatives 1024 --negatives mixed)
study complete-journey 400 300 4 16 "${flags[@]}"
run complete-journey fulltime 1 "${flags[@]}" --maxlen 400 --batch_size 4 --time_bias
for seed in 1 2 3; do tokens complete-journey k4-seed$seed 25 100; done
for run in k1 k16 mean; do tokens complete-journey $run-seed1; done

# Made-up users, of whose targets a known share can be foretold by old events alone.
made=(--model hstu --n_heads 2 --dropout_rate 0.2 --schedule linear --lr 2e-3 --num_epochs 8 --patience 8 --hidden_units 64
  --warmup_steps 200)
for share in 0.8 0; do
  prepare interests --name interests-$share --share $share --num_users 8000 --num_topics 20 --topic_size 10 --interests 4 \
    --old 40 --recent 16
  for seed in 1 2 3; do three interests-$share 56 40 32 112 $seed "${made[@]}"; done
  for seed in 1 2 3; do tokens interests-$share k4-seed$seed; done
done
for name in ml-1m complete-journey interests-0.8 interests-0; do compare $name --families PerSRec --reference PerSRec/recent; done
