//! Why a run folder or the folder of a training is refused.

use std::path::PathBuf;

/// A folder that cannot take the results of a run or of a training; another one can.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the lock.
    #[error(
        "{}: another longspan is writing to this folder; wait for it, or use another folder",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },

    /// It holds the results of another config.
    #[error(
        "folder {} belongs to another config: {difference}; use another folder, or delete this one",
        dir.display()
    )]
    OtherConfig {
        /// The folder.
        dir: PathBuf,
        /// The first key that differs, with both values.
        difference: String,
    },

    /// Its `config.toml` is not that of a run.
    #[error("{}: holds something other than a run; use another folder", dir.display())]
    NotARun {
        /// The folder.
        dir: PathBuf,
    },

    /// A training cannot continue in it.
    #[error("{problem}")]
    Training {
        /// The folder, what is wrong with it, and what to do.
        problem: String,
    },
}
