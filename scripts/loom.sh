#!/usr/bin/env bash
# Model-checks the reader protocol: every interleaving that loom can tell apart.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
cargo test --release --lib loom
