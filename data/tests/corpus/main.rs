//! Corpora: every file format, the order of files, and the message for each mistake.

mod folder;
mod parquet_files;
mod paths;
mod text_files;
