//! Errors of vocabularies and corpora.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::format::KNOWN_EXTENSIONS;

/// An error in a vocabulary or a corpus. The message names the file and the place in it and says
/// what to do.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {reason}; check the path and its permissions", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        reason: io::Error,
    },

    /// A line of a vocabulary file cannot be parsed or repeats another one.
    #[error("{}:{line}: {problem}; each line must be a token in base64, a space and its rank, as in qwen.tiktoken", path.display())]
    VocabularyLine {
        /// The vocabulary file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// A vocabulary file is incomplete.
    #[error("{}: {problem}; fetch the file again (for Qwen it is the qwen.tiktoken next to the checkpoint)", path.display())]
    Vocabulary {
        /// The vocabulary file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A token id lies outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {size} tokens (0 to {}); decode with the tokenizer that made the ids", size - 1)]
    UnknownToken {
        /// The id.
        id: u32,
        /// The number of tokens in the vocabulary.
        size: usize,
    },

    /// A corpus path does not exist.
    #[error("corpus {spec}: no such file or folder; check the path (a relative path starts at the current folder, {})", current.display())]
    NoSuchPath {
        /// The corpus as the user wrote it.
        spec: String,
        /// The current folder.
        current: PathBuf,
    },

    /// A glob pattern is malformed.
    #[error(
        "corpus {pattern}: not a valid pattern: {reason}; `*` matches any name, `**` any folders, `[ab]` one of the letters"
    )]
    BadPattern {
        /// The pattern as the user wrote it.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A glob pattern matches no file.
    #[error("corpus {pattern}: no file matches; check the pattern (a relative one starts at the current folder, {})", current.display())]
    NoMatch {
        /// The pattern as the user wrote it.
        pattern: String,
        /// The current folder.
        current: PathBuf,
    },

    /// A folder contains no file with a known extension.
    #[error("{}: no corpus file in this folder or below it; put files there with one of the extensions {KNOWN_EXTENSIONS}", path.display())]
    NoCorpusFiles {
        /// The folder.
        path: PathBuf,
    },

    /// A file's extension is unknown.
    #[error("{}: unknown extension; known are {KNOWN_EXTENSIONS}; rename or convert the file, or narrow the pattern that matched it", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },

    /// There is no built-in corpus of this name.
    #[error("corpus {spec}: no built-in corpus of this name; the only one is `{known}`")]
    UnknownBuiltin {
        /// The corpus as the user wrote it.
        spec: String,
        /// The name of the built-in corpus.
        known: &'static str,
    },

    /// A compressed file is truncated or damaged.
    #[error("{}: not a complete {format} file: {reason}; fetch or compress it again", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// The decompressor's message.
        reason: io::Error,
    },

    /// Text is not UTF-8.
    #[error("{}:{line}: not UTF-8 at byte {offset} of the line (the first is 0); convert the file to UTF-8, with iconv for example", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The offset in the line of the first byte that is not UTF-8.
        offset: usize,
    },

    /// A line of a JSON Lines file is not a JSON object.
    #[error("{}:{line}: not a JSON object: {reason}; a .jsonl file has one object per line", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A JSON object lacks the text field.
    #[error("{}:{line}: no field {field:?}; fields found: {found}; choose one of them as the text field", path.display())]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field looked for.
        field: String,
        /// The fields found.
        found: String,
    },

    /// The text field of a JSON object is not a string.
    #[error("{}:{line}: field {field:?} is {found}, not a string; choose a field that holds text", path.display())]
    FieldNotString {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field looked for.
        field: String,
        /// The type of its value.
        found: &'static str,
    },

    /// A Parquet file is damaged or of an unsupported kind.
    #[error("{}: cannot read this Parquet file: {reason}; fetch or write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        reason: String,
    },

    /// A Parquet file lacks the text column.
    #[error("{}: no column {column:?}; columns found: {found}; choose one of them as the text field", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns found.
        found: String,
    },

    /// The text column of a Parquet file is not a plain string column.
    #[error("{}: column {column:?} is {found}, not a plain string column; choose a column that holds text", path.display())]
    ColumnNotText {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The type of the column.
        found: String,
    },

    /// A value of a Parquet text column is not UTF-8.
    #[error("{} row {row}: column {column:?} is not UTF-8 at byte {offset} (the first is 0); write the column as UTF-8 strings", path.display())]
    RowNotUtf8 {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The text column.
        column: String,
        /// The offset in the value of the first byte that is not UTF-8.
        offset: usize,
    },
}
