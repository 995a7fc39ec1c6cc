#!/bin/sh
# Makes a folder with everything that the GPU tests and benches need on a machine without Rust and without this repository:
# stripped executables, and golden sets if HALFBYTE_GOLDEN names some. At most 64 MiB.
#
#     scripts/gpu-bundle.sh [folder]        (default .gpu; then, on the GPU machine: sh .gpu/run.sh)
set -eu
cd "$(dirname "$0")/.."
out=${1:-.gpu}
mkdir -p "$out"

# The path of each executable, from cargo's messages.
executables() {
    cargo "$@" --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"name":"\([a-z_]*\)".*"executable":"\([^"]*\)".*/\1 \2/p'
}
executables test --test kernels | while read -r name path; do
    strip -o "$out/test-$name" "$path"
done
executables bench --bench kernels | while read -r name path; do
    strip -o "$out/bench-$name" "$path"
done
cp scripts/gpu-run.sh "$out/run.sh"
du -sh "$out"
size=$(du -sm "$out" | cut -f1)
[ "$size" -le 64 ] || { echo "the bundle has $size MiB, more than 64" >&2; exit 1; }
