# List the recipes.
default:
    @just --list

# Build and run the built-in example.
quickstart:
    cargo run --release -- run experiments/configs/quickstart.toml

# Run all tests.
test:
    cargo test --workspace --features train-tokenizer,wgpu

# Check what a change must pass.
ci:
    .ci/run

# Format everything, the files that registries declare too: cargo fmt does not see them.
fmt:
    cargo fmt --all
    rustfmt --edition 2024 rope/src/*.rs attention/src/patterns/*.rs attention/src/scales/*.rs \
        model/src/families/*.rs experiments/src/protocols/*.rs experiments/src/tasks/*.rs \
        experiments/src/figures/*.rs

# Run clippy.
lint:
    cargo clippy --workspace --all-targets --features train-tokenizer,wgpu -- -D warnings

# Build and open the documentation of all crates.
doc:
    cargo doc --workspace --no-deps --open
