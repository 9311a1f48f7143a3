//! `longspan report`.

use std::path::PathBuf;

use anyhow::Result;
use longspan::{folder, report};

use super::print;

/// Options of `report`.
#[derive(clap::Args)]
pub struct Args {
    /// Run folder
    dir: PathBuf,
}

/// Writes tables and figures from the records of a run folder.
pub fn report(args: Args) -> Result<()> {
    let (perplexities, tasks) = folder::load_records(&args.dir)?;
    let config = folder::load_config(&args.dir)?;
    let text = report::write(&args.dir, &config, &perplexities, &tasks)?;
    print(&format!("{text}\nwritten to {}\n", args.dir.display()))
}
