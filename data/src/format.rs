//! File formats of a corpus, told by the extension.

use std::path::Path;

/// The extensions of [`Format::of`], for error messages.
pub(crate) const KNOWN_EXTENSIONS: &str =
    ".txt, .jsonl, both also with .gz or .zst after it, and .parquet";

/// How a corpus file is read.
pub(crate) enum Format {
    Text(Compression),
    JsonLines(Compression),
    Parquet,
}

/// How a text or JSON Lines file is compressed.
#[derive(Clone, Copy)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Format {
    /// The format by the file's extension, in any case; `None` if the extension is unknown.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (name, compression) = if let Some(name) = name.strip_suffix(".gz") {
            (name, Compression::Gzip)
        } else if let Some(name) = name.strip_suffix(".zst") {
            (name, Compression::Zstd)
        } else if name.ends_with(".parquet") {
            return Some(Self::Parquet);
        } else {
            (name.as_str(), Compression::None)
        };
        if name.ends_with(".txt") {
            Some(Self::Text(compression))
        } else if name.ends_with(".jsonl") {
            Some(Self::JsonLines(compression))
        } else {
            None
        }
    }
}
