//! User mistakes: exit code 2, a message that names the file, the key or tensor and both values,
//! and nothing of the user's is lost.

#[path = "../shared/mod.rs"]
mod shared;

mod config;
mod config_json;
mod gptq;
mod needle;
mod published;
mod run_folder;
mod text;
mod training_config;
mod training_folder;
mod training_sources;
mod weights;

use std::path::Path;

use shared::fail;

const RUN: [&str; 2] = ["run", "run.toml"];

/// Overrides of a config, each with words that its error must contain.
type Mistakes<'a> = [(&'a str, &'a [&'a str])];

/// Runs `run.toml` with each override, which must be refused.
#[track_caller]
fn refused(dir: &Path, mistakes: &Mistakes) {
    for (set, words) in mistakes {
        fail(dir, &[&RUN[..], &["--set", set]].concat(), words);
        assert!(!dir.join("runs").exists(), "{set}: the run was started");
    }
}
