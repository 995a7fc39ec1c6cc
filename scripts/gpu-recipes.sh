#!/bin/sh
# Runs the recipes of the four tutorials on a GPU with models of real size and random weights. Each run trains, evaluates,
# writes checkpoints and saves; then it is reset to a checkpoint, as after a kill, and resumed. Prints a short table at the end.
#
#     sh scripts/gpu-recipes.sh HALFBYTE DATA [RECIPES]
#
# HALFBYTE: the program. DATA: a folder with DATA/a to DATA/d, one per recipe, each with the train.jsonl and test.jsonl that
# `cargo run --example tutorial_data` writes, and with tokenizers in DATA/mistral and DATA/llama.
# RECIPES: "a b c d" or a subset. Environment: STEPS (30), the length of a run, and AT (25), the checkpoint to resume from.
set -u
halfbyte=$1
data=$2
steps=${STEPS:-30}
at=${AT:-25}
root=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:-/tmp}/recipes
mkdir -p "$out"
table=
failed=0

# Samples the memory in use on the GPU until file $1 is removed, and writes the maximum in MiB to $1.highest.
watch() {
    highest=0
    while [ -e "$1" ]; do
        now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0)
        [ "$now" -gt "$highest" ] && highest=$now && echo "$highest" >"$1.highest"
        sleep 0.3
    done
}

# recipe NAME FILE TOKENIZER BUDGET_GIB: runs one recipe and adds a line to the table.
recipe() {
    name=$1 file=$2 tokenizer=$3 budget=$4
    run=/tmp/run-$name
    rm -rf "$run"
    train() {
        "$halfbyte" train "$root/docs/recipes/$file.toml" --dummy-weights --device cuda:0 --set "output_dir=$run" \
            --set "tokenizer_name_or_path=$data/$tokenizer" --set "dataset=$data/$name" --set split=train \
            --set eval_split=test --set "max_steps=$steps" --set save_strategy=steps \
            --set save_steps=5 --set logging_steps=5 --set eval_strategy=steps --set eval_steps=15 \
            --set max_eval_samples=64 --set per_device_eval_batch_size=4 "$@"
    }
    : >"$out/$name.watch"
    watch "$out/$name.watch" &
    start=$(date +%s)
    train >"$out/$name.log" 2>&1
    first=$?
    seconds=$(($(date +%s) - start))
    if [ "$first" != 0 ]; then
        rm -f "$out/$name.watch"
        failed=1
        table="$table$name: exit $first: $(tail -n 2 "$out/$name.log")
"
        return
    fi
    whole=$(sha256sum <"$run/adapter_model.safetensors")
    # Leaves the folder as a kill between two checkpoints would.
    rm -f "$run/adapter_model.safetensors"
    for later in "$run"/checkpoint-*; do
        [ "${later##*-}" -gt "$at" ] && rm -r "$later"
    done
    train --resume >"$out/$name-resumed.log" 2>&1
    second=$?
    resumed=$(sha256sum <"$run/adapter_model.safetensors")
    rm -f "$out/$name.watch"
    wait
    same="different bits after the resume"
    [ "$whole" = "$resumed" ] && same="same bits after the resume"
    [ "$first$second" = 00 ] && [ "$whole" = "$resumed" ] || failed=1
    cp "$run/metrics.jsonl" "$out/$name-metrics.jsonl"
    planned=$(grep -h '^memory:' "$out/$name.log")
    table="$table$name: exit $first and $second, $seconds s for $steps steps; budget $budget GiB, driver's peak $(cat "$out/$name.watch.highest") MiB; $planned; $same
"
    tail -n 4 "$out/$name.log"
}

for name in ${3:-a c d b}; do
    case $name in
    a) recipe a a-mistral-chat mistral 12 ;;
    b) recipe b b-mixtral-instructions mistral 80 ;;
    c) recipe c c-mistral-code mistral 14.5 ;;
    d) recipe d d-llama-korean llama 24 ;;
    esac
done
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
printf '%s' "$table"
exit $failed
