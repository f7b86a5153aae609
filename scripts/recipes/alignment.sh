#!/usr/bin/env bash
# docs/results.md, "Aligned with a language model" and "Aligned, on made-up data": bash scripts/recipes/alignment.sh FOLDER
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

# Made-up videos and comments, and a language model of random weights.
name=many-videos texts=(--llm_emb_size 32)
prepare comments-demo --num_videos 6000 --name $name
[ -d models/random ] || "$PYTHON" scripts/random_llm.py models/random --width 64 --blocks 1
random=(--dataset $name --model_name_or_path models/random --tokenized_len 32)
tasks() {  # RUN, SEED [flags]: both tasks
  lsvcr rec-$1 $2 --dataset $name --fresh_days 7 "${texts[@]}" "${@:3}"
  lsvcr comm-$1 $2 --dataset $name --task CommRank "${texts[@]}" "${@:3}"
}
study() {  # RUN, SEED [flags]: alignment, and both tasks from it
  local run=$1-seed$2
  bash LSVCR/run_lora.sh "${random[@]}" "${texts[@]}" --lora_r 0 --no_gradient_checkpointing --train_num 20000 --num_epochs 2 \
    --lr 1e-3 --batch_size 64 --max_his_len 20 --max_source_length 300 --save_steps 50 \
    --run_name $run --seed $2 "${@:3}" --resume
  "$PYTHON" LSVCR/encode.py --run runs/LSVCR/$name/$run --init_type $run
  tasks $1 $2 --text $run --start_from runs/LSVCR/$name/$run
}
"$PYTHON" LSVCR/encode.py "${random[@]}" --init_type random
for seed in 42 43 44 45 46; do
  tasks sr $seed --text random
  study aligned $seed
done
alone=(--dataset $name --fresh_days 7 --disable_id "${texts[@]}")
lsvcr text-sr 42 "${alone[@]}" --text random
lsvcr text-aligned 42 "${alone[@]}" --text aligned-seed42 --start_from runs/LSVCR/$name/aligned-seed42
for loss in lm rec pref bhv; do study no-$loss 42 --${loss}_loss_weight 0; done
for baseline in newest latest popularity item-knn text-knn; do
  train Baselines --dataset $name --baseline $baseline --fresh_days 7
done
for baseline in newest latest popularity text-knn; do train Baselines --dataset $name --baseline $baseline --comments; done
for run in rec-sr comm-sr rec-aligned comm-aligned; do
  compare $name --reference LSVCR/$run --output_dir runs/compare/$name-$run
done
