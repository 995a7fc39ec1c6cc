#!/bin/sh
# Runs a bundle made by scripts/gpu-bundle.sh on a GPU machine. Each stage has its own time limit. Prints a short table at the
# end.
#
#     sh run.sh [logs]                          all stages: devices kernels copies repeats golden strategies train kills width
#                                               step bench
#     ONLY="kernels golden" sh run.sh           these stages, in this order
#     SANITIZE="memcheck racecheck" sh run.sh   runs the kernel tests under these compute-sanitizer tools instead
#     FILTER="gemm attention" SANITIZE=...      one run per word, of the cases whose names contain it
#     BYTES=1000000                             skips kernel cases whose operands exceed this many bytes
#     LIMIT=300                                 time limit of every stage in seconds
#     MODEL=mixtral-8x7b-v0.1 DEVICE=cuda:1     model and device of the stage "train"
set -u

# Prints versions, GPUs, and the load times of the kernels: first as machine code, then as PTX, which the driver compiles.
devices() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv
    export CUDA_CACHE_DISABLE=1
    ./bin-halfbyte devices --kernels | tee loaded || return 1
    CUDA_FORCE_PTX_JIT=1 ./bin-halfbyte devices --kernels | tee compiled || return 1
    total() { sed -n 's/^  total *//p' "$1" | tr -s ' '; }
    gpu=$(grep '^cuda:' loaded | head -n 1)
    case $gpu in *none*) return 1 ;; esac
    echo "$gpu; ms to load kernels for bf16 and f16: machine code $(total loaded), PTX $(total compiled)"
}

# Trains twice on random weights, the second time with recomputation and without graphs. The adapters must be identical.
train() {
    awk 'BEGIN { for (i = 0; i < 400; i++) { printf "{\"text\": \""; for (j = 0; j < 300; j++) printf "the %d of %d ", (i * 7919 + j * 31) % 997, (i + j * j) % 89; print "\"}" } }' >data.jsonl
    cat >recipe.toml <<RECIPE
model_name_or_path = "${MODEL:-mistral-7b-v0.1}"
tokenizer_name_or_path = "tokenizer/tests/data/tokenizers/small"
dataset = ["data.jsonl"]
text_column = "text"
packing = true
max_seq_length = 2048
load_in_4bit = true
bnb_4bit_quant_type = "nf4"
bnb_4bit_use_double_quant = true
bnb_4bit_compute_dtype = "bfloat16"
r = 16
lora_alpha = 16
target_modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
learning_rate = 2e-4
per_device_train_batch_size = 4
gradient_accumulation_steps = 1
max_steps = 20
logging_steps = 5
RECIPE
    run="./bin-halfbyte train recipe.toml --dummy-weights --device ${DEVICE:-cuda}"
    $run --set output_dir=first || return 1
    $run --set output_dir=second --set gradient_checkpointing=true --no-graph || return 1
    cmp first/adapter_model.safetensors second/adapter_model.safetensors || return 1
    grep -h tokens_per_second first/metrics.jsonl | tail -n 1
    echo "both runs gave the same adapter"
}

# Stages that are functions above run through this script again, so that `timeout` can limit them.
if [ "${1:-}" = stage ]; then
    "$2"
    exit
fi

here=$(cd "$(dirname "$0")" && pwd)
logs=${1:-$here/logs}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar xzf "$here/bundle.tar.gz" -C "$work"
cd "$work" || exit 1
table=
failed=0

# stage NAME SECONDS COMMAND..: runs the command, keeps its log, records the outcome.
stage() {
    name=$1 limit=${LIMIT:-$2}
    shift 2
    start=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$logs/$name.log" 2>&1
    case $? in
        0) outcome=ok ;;
        124 | 137) outcome="OUT OF TIME" failed=1 ;;
        *) outcome=FAILED failed=1 ;;
    esac
    last=$(tail -n 1 "$logs/$name.log" | cut -c1-200)
    line="$name: $outcome, $(($(date +%s) - start)) s: $last"
    echo "$line"
    table="$table$line
"
}

export REQUIRE_GPU=1 HALFBYTE_DEVICE="${DEVICE:-cuda}" KERNEL_BYTES="${BYTES:-}"
if [ -d golden ]; then
    HALFBYTE_GOLDEN=$(ls -d "$work"/golden/* | paste -sd:)
    export HALFBYTE_GOLDEN
fi
if [ "${SANITIZE:-}" ]; then
    for tool in $SANITIZE; do
        for word in ${FILTER:-all}; do
            [ "$word" = all ] && filter= || filter=$word
            # shellcheck disable=SC2086
            stage "$tool-$word" 540 compute-sanitizer --tool "$tool" --error-exitcode 9 ./test-kernels $filter
        done
    done
else
    for name in ${ONLY:-devices kernels copies repeats golden strategies train kills width step bench}; do
        case $name in
            devices | train) stage "$name" 240 sh "$here/run.sh" stage "$name" ;;
            # shellcheck disable=SC2086
            kernels) stage kernels 300 ./test-kernels ${FILTER:-} ;;
            copies | repeats) stage "$name" 120 ./test-whole_step "$name" ;;
            strategies) stage strategies 500 ./test-whole_step strategies ;;
            # The CPU device allocates memory for every op. These settings keep freed memory in the process; returning it to the
            # system each time would take most of the run.
            width) stage width 500 env MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=99999999999 ./test-whole_step width ;;
            kills) stage kills 240 env HALFBYTE_BIN=./bin-halfbyte ./test-cli --nocapture resume::runs_killed ;;
            golden) stage golden 300 ./test-golden bf16 ;;
            step)
                for policy in keep gate-up recompute offload; do
                    stage "step-$policy" 120 ./bench-step --steps 20 --policy "$policy"
                done
                ;;
            # shellcheck disable=SC2086
            bench) stage bench 540 ./bench-kernels --bench ${FILTER:-} ;;
            *) stage "$name" 1 sh -c "echo unknown stage; exit 1" ;;
        esac
    done
fi
echo
grep -h '^FAIL' "$logs"/*.log 2>/dev/null | head -20
printf '%s' "$table"
exit $failed
