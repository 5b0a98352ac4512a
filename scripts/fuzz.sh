#!/usr/bin/env bash
# Feeds the engine bytes that a stranger made, and operations in any order.
#
#   scripts/fuzz.sh                            every target, 60 seconds each
#   scripts/fuzz.sh --seconds 10 raw           one target, 10 seconds
#   scripts/fuzz.sh --runs 1000000 structured  so many executions
#   scripts/fuzz.sh --sanitizer address        with AddressSanitizer, half as fast or less
#
# Prints executions and findings per target; a finding is kept in fuzz/artifacts and fails the script.
# New inputs are kept in fuzz/corpus, beside the committed seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60 runs= sanitizer=none targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --sanitizer) sanitizer=$2; shift 2 ;;
    -*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) targets+=("$1"); shift ;;
    esac
done

# libFuzzer and the sanitizers are there in a stable compiler too, once it is asked so.
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --quiet
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz && cargo fuzz list)

host=$(rustc -vV | sed -n 's/^host: //p')
out=fuzz/target/$sanitizer
(cd fuzz && cargo fuzz build --sanitizer "$sanitizer" --no-trace-compares --target-dir "target/$sanitizer")

# Memory given back to the system at every turn costs more than what is tested.
export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000
limit=(-max_total_time="$seconds")
[ -z "$runs" ] || limit=(-runs="$runs")
failed=0
printf '\n%-12s %14s %10s %9s  %s\n' target executions a-second findings notes
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    log=fuzz/artifacts/$target.log
    status=0
    # Nothing may take twenty seconds or half a gigabyte. Features are not weighed: that costs more than
    # an execution.
    "$out/$host/release/$target" "${limit[@]}" -max_len=400 -entropic=0 -reduce_inputs=0 -timeout=20 \
        -malloc_limit_mb=512 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    count() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
    findings=0
    if [ $status -ne 0 ]; then findings=1 failed=1; fi
    notes=$(sed -n 's/^stat::operations: *\(.*\)/\1 operations/p' "$log" | tail -1)
    printf '%-12s %14s %10s %9s  %s\n' "$target" "$(count number_of_executed_units)" \
        "$(count average_exec_per_sec)" "$findings" "$notes"
    [ $status -eq 0 ] || { grep -E 'panicked|ERROR|SUMMARY|Test unit written' -A2 "$log" || tail -5 "$log"; }
done
exit $failed
