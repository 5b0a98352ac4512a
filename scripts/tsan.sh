#!/usr/bin/env bash
# Runs the tests that have threads under ThreadSanitizer: accesses that nothing orders are told.
#
#   scripts/tsan.sh                   those tests
#   scripts/tsan.sh --test readers    as `cargo test`
#   scripts/tsan.sh --planted         sees that a planted race is found
#
# The standard library is built with it, too: else its locks, channels and counters order nothing that
# the sanitizer can see. Nothing is suppressed.
set -euo pipefail
cd "$(dirname "$0")/.."
# The sanitizers are there in a stable compiler too, once it is asked so.
export RUSTC_BOOTSTRAP=1
[ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] || rustup component add rust-src
export RUSTFLAGS="-Zsanitizer=thread -Copt-level=1"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=0:exitcode=66:history_size=4}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
host=$(rustc -vV | sed -n 's/^host: //p')
tests=(--test readers --test concurrent --test events --test reentrancy --test rollback --test paged_vec \
    --test capture --test paged_ring)
if [ "${1-}" = --planted ]; then
    if cargo test -Zbuild-std --target "$host" -p snapring-tests --test concurrent -- --ignored planted; then
        echo "a planted race was not found" >&2
        exit 1
    fi
    echo "the planted race was found"
    exit
fi
[ $# -gt 0 ] || set -- "${tests[@]}"
cargo test -Zbuild-std --target "$host" -p snapring-tests "$@"
