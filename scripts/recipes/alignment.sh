#!/usr/bin/env bash
# docs/results.md, "Aligned with a language model": bash scripts/recipes/alignment.sh FOLDER
# FOLDER holds weibo-ced: photos, comments, user_videos and user_comments, each a .parquet.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

lsvcr() { train LSVCR --patience 3 --num_epochs 15 --run_name "$1-seed$2" --seed "$2" "${@:3}"; }  # RUN, SEED [flags]
align() { bash LSVCR/run_lora.sh "$@" --no_gradient_checkpointing --batch_size 32 --tokenized_len 32 --resume; }  # [flags]
vectors() { "$PYTHON" LSVCR/encode.py "$@"; }  # [flags]

# Microblogs: the first four blocks of SmolLM2 as they are, and aligned.
name=weibo raw="$data/weibo-ced"
prepare comments --name $name --videos "$raw/photos.parquet" --comments "$raw/comments.parquet" \
  --video_events "$raw/user_videos.parquet" --comment_events "$raw/user_comments.parquet"
"$PYTHON" Baselines/encode.py --dataset $name
vectors --dataset $name --llm_num_blocks 4 --tokenized_len 32 --init_type smollm2
align --dataset $name --prompts zh --train_num 2000 --max_source_length 640 --llm_num_blocks 4 --llm_last_n_unfreeze 2 \
  --save_steps 25 --run_name align
vectors --run runs/LSVCR/$name/align
fresh=(--dataset $name --fresh_days 7 --disable_id --timing heat)
comments=(--dataset $name --task CommRank)
started=(--text aligned --start_from runs/LSVCR/$name/align)
for seed in 42 43 44; do
  for text in tfidf smollm2; do
    lsvcr fresh-heat-$text $seed "${fresh[@]}" --text $text
    lsvcr comm-heat-$text $seed "${comments[@]}" --timing heat --text $text
  done
  lsvcr fresh-heat-started $seed "${fresh[@]}" "${started[@]}"
  lsvcr comm-heat-started $seed "${comments[@]}" --timing heat "${started[@]}"
done
for text in tfidf smollm2; do lsvcr comm-plain-$text 42 "${comments[@]}" --text $text; done
lsvcr comm-plain-started 42 "${comments[@]}" "${started[@]}"
compare $name

# Made-up comments: a small random model, and each loss left out.
name=comments-demo
prepare comments-demo
[ -d models/random ] || "$PYTHON" scripts/random_llm.py models/random --width 128
for rule in newest latest popularity text-knn item-knn; do
  train Baselines --dataset $name --fresh_days 7 --baseline $rule --run_name fresh-$rule
done
for rule in newest latest popularity text-knn; do train Baselines --dataset $name --comments --baseline $rule; done
both() {  # RUN, TEXT, SEED [flags]: of both tasks
  lsvcr "rec-$1" "$3" --dataset $name --text "$2" --fresh_days 7 "${@:4}"
  lsvcr "commrank-$1" "$3" --dataset $name --task CommRank --text "$2" "${@:4}"
}
study() {  # RUN, SEED [flags]: alignment, then both tasks from it
  align --dataset $name --model_name_or_path models/random --lora_r 0 --llm_emb_size 64 --train_num 12000 --max_his_len 10 \
    --max_source_length 200 --save_steps 100 --run_name "$1-seed$2" --seed "$2" "${@:3}"
  vectors --run "runs/LSVCR/$name/$1-seed$2" --init_type "$1-seed$2"
  both "$1" "$1-seed$2" "$2" --llm_emb_size 64 --start_from "runs/LSVCR/$name/$1-seed$2"
}
vectors --dataset $name --model_name_or_path models/random --init_type random
for seed in 42 43 44; do
  study align $seed
  both sr-random random $seed --llm_emb_size 64
done
for loss in lm rec pref bhv; do study no-$loss 42 --${loss}_loss_weight 0; done
compare $name
