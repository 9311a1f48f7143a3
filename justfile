# List the recipes.
default:
    @just --list

# Build and run the built-in example.
quickstart:
    cargo run --release -- run experiments/configs/quickstart.toml

# All tests.
test:
    cargo test --workspace --features train-tokenizer,wgpu

# What is checked before a change is accepted.
ci:
    .ci/run

# Format everything, the method files too.
fmt:
    cargo fmt --all
    rustfmt --edition 2024 rope/src/*.rs

# Lints.
lint:
    cargo clippy --workspace --all-targets --features train-tokenizer,wgpu -- -D warnings

# The documentation of all crates.
doc:
    cargo doc --workspace --no-deps --open
