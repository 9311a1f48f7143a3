//! The subcommands: options, calls of the library, output.

mod args;
pub mod chat;
pub mod devices;
pub mod generate;
pub mod list;
pub mod plan;
pub mod profile;
pub mod random_checkpoint;
pub mod report;
pub mod run;
pub mod score;
pub mod tokenize;
pub mod train;
#[cfg(feature = "train-tokenizer")]
pub mod train_tokenizer;

use std::io::Write;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Results on standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .context("standard output")
}

/// A bar on standard error, hidden where that is not a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
