//! `longspan run`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use longspan::config::RunConfig;
use longspan::folder::RunFolder;
use longspan::measure::{RunOptions, Sweep};
use longspan::report;

use super::args::{ConfigArgs, DeviceArgs, MemoryArgs};
use super::{print, progress_bar};

/// Options of `run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Run folder [default: runs/NAME-OF-THE-CONFIG]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs a config, continuing where an earlier run of it stopped.
pub fn run(args: Args) -> Result<()> {
    let path = &args.config.config;
    let options = RunOptions {
        device: args.device.device.open()?,
        memory_limit: args.memory.memory_limit,
        progress: progress_bar(),
    };
    let config = RunConfig::load(path, &args.config.set)?;
    let out = args.out.unwrap_or_else(|| {
        Path::new("runs").join(path.file_stem().unwrap_or_else(|| "run".as_ref()))
    });
    let sweep = Sweep::open(config).with_context(|| path.display().to_string())?;
    let config = sweep.config().clone();
    let mut folder = RunFolder::open(&out, &config)?;
    let results = sweep.run(&mut folder, &options)?;
    if !results.refused.is_empty() {
        log::info!("passes were refused; a larger --memory-limit lets them run");
    }
    let text = report::write(&out, &config, &results.perplexity, &results.tasks)?;
    print(&format!("{text}\nwritten to {}\n", out.display()))
}
