#!/bin/sh
# Runs the benchmarks and writes BENCHMARKS.md and benches/plots.
#
#   scripts/bench.sh                 everything, about twenty minutes once it is compiled
#   scripts/bench.sh 'save world'    what has this in its name; the other figures stay as they are
#   scripts/bench.sh --test          every row once, to see that it works; nothing is written
#
# SNAPRING_BENCH_EXT4 names a directory on ext4, if cargo's target directory is not on one.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
failed=

run() { cargo bench --quiet --package snapring-bench "$@"; }

# First, so that no compiler runs beside what is measured.
cargo bench --package snapring-bench --no-run
cargo build --quiet --release --package snapring-bench --bin report

case ${1-} in
--test)
    run -- --test
    exit
    ;;
'')
    rm -rf "$target/criterion" "$target/snapring-bench"
    run --no-fail-fast || failed=yes
    ;;
*)
    for bench in save read rollback open durable paired mmo; do
        run --bench "$bench" -- "$1"
    done
    ;;
esac
cargo run --quiet --release --package snapring-bench --bin report
# The page tells what was measured, even where a save takes more heap than it may.
[ -z "$failed" ]
