#!/bin/sh
# Packs what the GPU tests and benches need on a machine without Rust and without this repository: stripped executables,
# goldens, a tokenizer. The output folder contains bundle.tar.gz, and run.sh, which unpacks and runs it.
#
#     scripts/gpu-bundle.sh [folder]        (default .gpu; then, on the GPU machine: sh .gpu/run.sh)
#     HALFBYTE_GOLDEN=dir[:dir...]          also packs the files that the 16-bit cases of these golden sets need
#     QUICK=1                               skips the release build: device times are the same, host times are not
#     MIB=48                                upper limit on the size of the folder
set -eu
cd "$(dirname "$0")/.."
out=${1:-.gpu}
rm -rf "$out"
mkdir -p "$out"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Prints "kind-target path" for each executable that a cargo command builds, taken from its JSON messages.
executables() {
    cargo "$@" --message-format=json |
        sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\].*"name":"\([a-z_]*\)","src_path.*"executable":"\([^"]*\)".*/\1-\2 \3/p'
}
copy() {
    while read -r name path; do
        strip -o "$root/$name" "$path"
    done
}
# Building the tests also builds the program.
executables test --no-run --test kernels --test golden --test cli | copy
# The cases `width` compute their reference on the CPU at real sizes, which needs an optimized build.
executables test --release --no-run --test whole_step | copy
if [ "${QUICK:-0}" = 1 ]; then
    executables test --no-run --bench kernels --bench step | copy
else
    executables bench --no-run --bench kernels --bench step | copy
    executables build --release | copy
fi

# Lists the files of a golden set that the bf16 cases read: forward passes with their f32 counterparts, models, bf16 traces, and
# the files of the f32 traces that these are compared with.
golden_files() {
    find forward -name meta.json -o -name inputs.safetensors -o -name 'fp32.*' -o -name '*bf16.*' -o -name 'nf4dq_f32.*'
    find models -path '*-bnb-4bit' -prune -o -type f -print
    find train/bf16_* -type f
    for trace in train/bf16_*; do
        twin=train/${trace#train/bf16_}
        [ -d "$twin" ] && find "$twin" -name trace.json -o -name 'grads_step0.*' -o -name 'eval_logits.*' -o -name 'adapter_*.*'
    done
    return 0
}
tokenizer=tokenizer/tests/data/tokenizers/small
mkdir -p "$root/app/tests/data" "$root/$tokenizer"
cp -r app/tests/data/golden "$root/app/tests/data/"
cp "$tokenizer/tokenizer.model" "$root/$tokenizer/"
number=0
IFS=:
for set in ${HALFBYTE_GOLDEN:-}; do
    number=$((number + 1))
    mkdir -p "$root/golden/$number"
    (cd "$set" && golden_files | sort -u | tar cf - -T -) | tar xf - -C "$root/golden/$number"
done
unset IFS
[ "$number" -gt 0 ] || echo "HALFBYTE_GOLDEN is not set: packing only the repository's own goldens" >&2

du -sm "$root"/* | sort -n
tar cf - -C "$root" . | gzip -6 >"$out/bundle.tar.gz"
cp scripts/gpu-run.sh "$out/run.sh"
size=$(du -sm "$out" | cut -f1)
[ "$size" -le "${MIB:-48}" ] || { echo "the bundle has $size MiB, more than the limit of ${MIB:-48} MiB" >&2; exit 1; }
echo "$out: $size MiB"
