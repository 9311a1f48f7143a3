use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::corpus::{BUILTIN_ARTICLES, KNOWN_EXTENSIONS};

/// What can go wrong with a vocabulary or a corpus. Each message is complete: it names the file and
/// the place, and says what to do next.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {reason}; check the path and its permissions", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },

    /// A line of a vocabulary file is wrong.
    #[error("{}:{line}: {problem}; a vocabulary line is `base64-of-the-token rank`, as in qwen.tiktoken", path.display())]
    VocabularyLine {
        /// The vocabulary file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// A vocabulary file is wrong as a whole.
    #[error("{}: {problem}; fetch the complete vocabulary file again, such as the qwen.tiktoken beside the checkpoint", path.display())]
    Vocabulary {
        /// The vocabulary file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A token id lies outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {size} tokens (0 to {}); use the tokenizer the ids were made with", size - 1)]
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
        "corpus {pattern}: not a valid pattern: {reason}; `*` stands for any name, `**` for any folders, `[ab]` for one of the letters"
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

    /// A folder holds no file of a known extension.
    #[error("{}: no corpus file in this folder or below it; known extensions: {KNOWN_EXTENSIONS}", path.display())]
    NoCorpusFiles {
        /// The folder.
        path: PathBuf,
    },

    /// A file's extension names no known format.
    #[error("{}: unknown extension; known ones: {KNOWN_EXTENSIONS}; rename or convert the file, or narrow the pattern that matched it", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },

    /// There is no built-in corpus of this name.
    #[error("corpus {spec}: no built-in corpus of this name; there is `{BUILTIN_ARTICLES}`")]
    UnknownBuiltin {
        /// The corpus as the user wrote it.
        spec: String,
    },

    /// A compressed file is truncated or damaged.
    #[error("{}: not a complete {format} file: {reason}; fetch or compress it again", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What the decompressor said.
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
    #[error("{}:{line}: not a JSON object: {reason}; a .jsonl file holds one object a line", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A JSON object lacks the text field.
    #[error("{}:{line}: no field {field:?}; fields found: {found}; set text_field to one of them", path.display())]
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
    #[error("{}:{line}: field {field:?} is {found}, not a string; set the text field to one that holds text", path.display())]
    FieldNotString {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field looked for.
        field: String,
        /// What it holds.
        found: &'static str,
    },

    /// A Parquet file is damaged or of an unsupported kind.
    #[error("{}: cannot read this Parquet file: {reason}; fetch or write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },

    /// A Parquet file lacks the text column.
    #[error("{}: no column {column:?}; columns found: {found}; set text_field to one of them", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns found.
        found: String,
    },

    /// The text column of a Parquet file does not hold strings.
    #[error("{}: column {column:?} is {found}, not a plain string column; set the text field to one that holds text", path.display())]
    ColumnNotText {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// What it is.
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
