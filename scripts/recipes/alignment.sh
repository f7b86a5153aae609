#!/usr/bin/env bash
# docs/results.md, "Aligned with a language model": bash scripts/recipes/alignment.sh FOLDER
# FOLDER holds weibo-ced: photos, comments, user_videos and user_comments, each a .parquet.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

lsvcr() { train LSVCR --patience 3 --num_epochs 15 --run_name "$1-seed$2" --seed "$2" "${@:3}"; }  # RUN, SEED [flags]

name=weibo raw="$data/weibo-ced"
prepare comments --name $name --videos "$raw/photos.parquet" --comments "$raw/comments.parquet" \
  --video_events "$raw/user_videos.parquet" --comment_events "$raw/user_comments.parquet"
"$PYTHON" Baselines/encode.py --dataset $name
"$PYTHON" LSVCR/encode.py --dataset $name --llm_num_blocks 4 --tokenized_len 32 --init_type smollm2
bash LSVCR/run_lora.sh --dataset $name --prompts zh --train_num 2000 --max_source_length 640 --tokenized_len 32 \
  --llm_num_blocks 4 --llm_last_n_unfreeze 2 --no_gradient_checkpointing --batch_size 32 --save_steps 25 --run_name align --resume
"$PYTHON" LSVCR/encode.py --run runs/LSVCR/$name/align
fresh=(--dataset $name --fresh_days 7 --disable_id --timing heat)
comments=(--dataset $name --task CommRank --timing heat)
started=(--text aligned --start_from runs/LSVCR/$name/align)
for seed in 42 43 44; do
  for text in tfidf smollm2; do
    lsvcr fresh-heat-$text $seed "${fresh[@]}" --text $text
    lsvcr comm-heat-$text $seed "${comments[@]}" --text $text
  done
  lsvcr fresh-heat-started $seed "${fresh[@]}" "${started[@]}"
  lsvcr comm-heat-started $seed "${comments[@]}" "${started[@]}"
done
compare $name
