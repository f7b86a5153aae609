#!/usr/bin/env bash
# Pretrain MiniLM item by item on domains that share no item with a dataset, and write its vectors `pretrain`:
#   bash Recformer/pretrain_for.sh --data_path data/NAME [--embedding_dir DIR] [--users N] [flags of encode.py]
# It reads the domains that `pretraining_corpus.sh FOLDER --hold_out arts` prepared beside the dataset, N users of them
# (4000), and validates on arts; --precision is for all of it, and --runs_dir says where its run goes. After a kill it goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
usage="usage: bash Recformer/pretrain_for.sh --data_path data/NAME [--embedding_dir DIR] [--users N] [flags of encode.py]"
users=4000 precision=32-true dataset="" embeddings="$ROOT/embedding" runs="$ROOT/runs" flags=()
while [ $# -gt 0 ]; do
  case "$1" in
    --data_path) dataset="${2:?$usage}"; shift 2 ;;
    --embedding_dir) embeddings="${2:?$usage}"; shift 2 ;;
    --users) users="${2:?$usage}"; shift 2 ;;
    --runs_dir) runs="${2:?$usage}"; shift 2 ;;
    --precision) precision="${2:?$usage}"; shift 2 ;;
    *) flags+=("$1"); shift ;;
  esac
done
data="$(cd "$(dirname "${dataset:?$usage}")" && pwd)" name="$(basename "$dataset")"
by_item=(--pooler_type items --max_token_num 96 --max_attr_length 32)
run="$runs/Recformer/pretraining-arts/for-$name-$users"

"$PYTHON" "$ROOT/scripts/prepare.py" corpus --data_dir "$data" \
  --datasets pretraining-{health,clothing,books,electronics,food-kitchen,sports} \
  --disjoint_from "$name" pretraining-arts --on_shared_items drop --sample_users "$users" --name "pretraining-for-$name-$users"
bash "$ROOT/Recformer/lightning_run.sh" --data_path "$data/pretraining-for-$name-$users" --valid_path "$data/pretraining-arts" \
  "${by_item[@]}" --item_decay 0.5 --batch_size 64 --domains_apart --fix_word_embedding --mlm_weight 0 --dropout 0 \
  --warmup_steps 20 --num_epochs 1 --valid_users 500 --seed 1 --lr 2e-5 --window 8 --runs_dir "$runs" \
  --run_name "for-$name-$users" --precision "$precision" --resume
"$PYTHON" "$ROOT/Recformer/convert_pretrain_ckpt.py" --pretrained_ckpt_path "$run/checkpoints/best.ckpt" \
  --recformer_output_path "$run/converted/encoder.bin" --recformerseqrec_output_path "$run/converted/seqrec.bin"
exec "$PYTHON" "$ROOT/Recformer/encode.py" --init_type pretrain --data_path "$dataset" --embedding_dir "$embeddings" \
  --checkpoint "$run/converted/encoder.bin" --precision "$precision" "${by_item[@]}" "${flags[@]}"
