#!/bin/sh
# Runs a bundle of scripts/gpu-bundle.sh on a GPU machine; a short table comes last.
#
#     sh run.sh [logs]                 tests and benches
#     SANITIZE=1 sh run.sh [logs]      the kernel tests under compute-sanitizer's three tools as well
#     BENCH=0 sh run.sh [logs]         no benches
set -u
here=$(cd "$(dirname "$0")" && pwd)
logs=${1:-$here/logs}
mkdir -p "$logs"
table=
failed=0

# name, command: runs it, keeps the log, notes the outcome.
step() {
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$logs/$name.log" 2>&1; then outcome=ok; else outcome="FAILED ($?)"; failed=1; fi
    last=$(tail -n 1 "$logs/$name.log" | cut -c1-150)
    table="$table$name: $outcome, $(($(date +%s) - start)) s: $last
"
}

export REQUIRE_GPU=1
for test in "$here"/test-*; do
    step "$(basename "$test")" "$test"
done
if [ "${SANITIZE:-0}" = 1 ]; then
    for tool in memcheck racecheck initcheck; do
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/test-kernels"
    done
fi
if [ "${BENCH:-1}" = 1 ]; then
    for bench in "$here"/bench-*; do
        [ -e "$bench" ] && step "$(basename "$bench")" "$bench" --bench
    done
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
grep -h '^FAIL' "$logs"/test-*.log | head -20
printf '%s' "$table"
exit $failed
