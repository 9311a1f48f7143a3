//! Where the reference material lies, if it is there.

use std::path::{Path, PathBuf};

/// `../shared/<name>` beside the repository; `None`, with a line that says so, when it is absent.
pub fn path(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(name);
    if !path.exists() {
        println!("skipped: {name} is not beside the repository (1 check)");
        return None;
    }
    Some(path)
}
