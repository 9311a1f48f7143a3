//! `longspan train`.

use std::path::PathBuf;

use anyhow::Result;
use longspan::train;

use super::args::ConfigArgs;
use super::print;

/// Options of `train`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder [default: runs/train/NAME-OF-THE-CONFIG]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Trains a model, continuing where an earlier training of the same config stopped.
pub fn train(args: Args) -> Result<()> {
    let summary = train::train(&args.config.config, &args.config.set, args.out)?;
    print(&format!("{summary}\n"))
}
