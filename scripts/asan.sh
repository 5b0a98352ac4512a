#!/usr/bin/env bash
# Runs the integration tests under AddressSanitizer: what touches memory that is not its own is told.
#
#   scripts/asan.sh                all of them
#   scripts/asan.sh --test damage  as `cargo test`
set -euo pipefail
cd "$(dirname "$0")/.."
# The sanitizers are there in a stable compiler too, once it is asked so.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Copt-level=1"
# What a test leaks by intent (a forked child's mappings) is not looked for; addresses beyond a
# file's end are reserved by the terabyte.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:detect_stack_use_after_return=1}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/asan"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo test --target "$host" -p snapring-tests "$@"
