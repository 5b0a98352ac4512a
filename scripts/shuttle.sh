#!/usr/bin/env bash
# Runs the engine in random schedules of its threads, and sees that broken rules are noticed.
#
#   scripts/shuttle.sh            2000 schedules of each model
#   scripts/shuttle.sh 1000000    as many
set -euo pipefail
cd "$(dirname "$0")/.."
export SNAPRING_SCHEDULES="${1:-2000}"
export RUSTFLAGS="--cfg shuttle"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/shuttle"
# One after another: a rule is broken for the whole process.
cargo test --release --lib --features campaign shuttle -- --test-threads=1
