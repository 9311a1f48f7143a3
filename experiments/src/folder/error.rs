//! Why a run folder is refused.

use std::path::PathBuf;

/// A folder that cannot take the records of a run; another one can.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the lock.
    #[error(
        "{}: another longspan is writing to this run folder; wait for it, or use another folder",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },

    /// It holds records of another config.
    #[error(
        "run folder {} belongs to another config: {difference}; use another folder, or delete this \
         one",
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
}
