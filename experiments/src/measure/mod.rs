//! Measuring: from a config to cells, passes and records.
//!
//! A [`Measure`] is a kind of measurement: [`perplexity`] and [`tasks`] are the two. [`run`] is the
//! loop that both share.

mod check;
mod keys;
pub mod perplexity;
mod run;
mod sweep;
pub mod tasks;
#[cfg(test)]
mod tests;

pub(crate) use check::check_ids;
pub use check::plans;
pub use run::{Measure, Output, Pass, Todo, run};
pub use sweep::{AllRefused, Planned, Results, RunOptions, Sweep};
