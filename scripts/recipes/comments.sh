#!/usr/bin/env bash
# docs/results.md, "Videos and comments": bash scripts/recipes/comments.sh FOLDER
# FOLDER holds weibo-ced: photos, comments, user_videos and user_comments, each a .parquet.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export OMP_NUM_THREADS=1

name=weibo
raw="$data/weibo-ced"
prepare comments --name $name --videos "$raw/photos.parquet" --comments "$raw/comments.parquet" \
  --video_events "$raw/user_videos.parquet" --comment_events "$raw/user_comments.parquet"
"$PYTHON" Baselines/encode.py --dataset $name
encode --data_path data/$name --init_type minilm --max_token_num 64 --max_attr_length 32
encode --data_path data/$name/comments --init_type minilm --max_token_num 64 --max_attr_length 32

# Rules: what appeared in the last seven days, comments under a video, all that ever was.
for rule in newest latest popularity recency item-knn text-knn; do
  train Baselines --dataset $name --fresh_days 7 --baseline $rule --run_name fresh-$rule
done
for rule in newest latest popularity text-knn; do train Baselines --dataset $name --comments --baseline $rule; done
for rule in popularity item-knn text-knn; do train Baselines --dataset $name --baseline $rule --run_name all-$rule; done

# The model, by what it reads: texts, the clock, videos' own vectors.
lsvcr() { train LSVCR --dataset $name --patience 3 --run_name "$1-seed$2" --seed "$2" "${@:3}"; }  # RUN, SEED [flags]
fresh=(--fresh_days 7 --num_epochs 15)
comments=(--task CommRank --num_epochs 15)
for seed in 42 43 44; do
  for text in tfidf minilm; do
    lsvcr fresh-heat-$text $seed "${fresh[@]}" --text $text --disable_id --timing heat
    lsvcr comm-heat-$text $seed "${comments[@]}" --text $text --timing heat
    lsvcr all-$text $seed --text $text
  done
  lsvcr fresh-age-tfidf $seed "${fresh[@]}" --text tfidf --disable_id --timing age
  lsvcr fresh-heat-none $seed "${fresh[@]}" --text none --timing heat
  lsvcr comm-age-tfidf $seed "${comments[@]}" --text tfidf --timing age
  lsvcr comm-plain-tfidf $seed "${comments[@]}" --text tfidf
  lsvcr all-none $seed --text none
  for text in none tfidf; do
    train SASRec --dataset $name --init_type $text --seed $seed --fresh_days 7 --run_name fresh-sasrec-$text-seed$seed
    train SASRec --dataset $name --init_type $text --seed $seed --run_name all-sasrec-$text-seed$seed
  done
done
compare $name
