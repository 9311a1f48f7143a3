//! The unit of a corpus, shared by the readers of all file formats.

use crate::error::DataError;

/// One text and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file, relative to the folder at which the corpus was opened, and the place in it,
    /// counted from 1: `b/notes.txt`, `train.jsonl.zst:17` or `train.parquet row 3`.
    pub source: String,
    /// The text.
    pub text: String,
}

/// The documents of one file; the file may be read lazily.
pub(crate) type Documents<'a> = Box<dyn Iterator<Item = Result<Document, DataError>> + Send + 'a>;
