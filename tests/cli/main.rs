//! Commands other than `run` and `train`.

#[path = "../shared/mod.rs"]
mod shared;

mod generate;
mod listings;
mod score;
