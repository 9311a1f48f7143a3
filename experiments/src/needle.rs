//! Needle in a haystack: a fact is hidden at a depth of a long text and asked for at its end.

mod cells;
mod config;
mod record;
mod report;
mod run;
mod score;

pub use config::NeedleConfig;
pub use record::NeedleRecord;
pub use report::{one_line, write};
pub use run::NeedleRun;
