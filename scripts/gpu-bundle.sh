#!/bin/sh
# Makes a folder with everything that the GPU tests and benches need on a machine without Rust and without this repository:
# stripped executables, at most 64 MiB.
#
#     scripts/gpu-bundle.sh [folder]        (default .gpu; then, on the GPU machine: sh .gpu/run.sh)
#     QUICK=1 scripts/gpu-bundle.sh         benches without release optimisation: the time on the device is the same
set -eu
cd "$(dirname "$0")/.."
out=${1:-.gpu}
mkdir -p "$out"

# "target path" of each executable that a cargo command builds, from its messages.
executables() {
    cargo "$@" --no-run --message-format=json |
        sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\].*"name":"\([a-z_]*\)","src_path.*"executable":"\([^"]*\)".*/\1-\2 \3/p'
}
copy() {
    while read -r name path; do
        strip -o "$out/$name" "$path"
    done
}
executables test --test kernels --test whole_step | copy
if [ "${QUICK:-0}" = 1 ]; then
    executables test --bench kernels --bench step | copy
else
    executables bench --bench kernels --bench step | copy
fi
cp scripts/gpu-run.sh "$out/run.sh"
size=$(du -sm "$out" | cut -f1)
[ "$size" -le 64 ] || { echo "the bundle has $size MiB, more than 64" >&2; exit 1; }
echo "$out: $size MiB"
