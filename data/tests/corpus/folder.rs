//! Folders of test files and what is read from them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::write::GzEncoder;
use longspan_data::{Corpus, DataError, Document};
use tempfile::TempDir;

pub const TWO_LINES: &str =
    "{\"text\": \"one\", \"meta\": {\"id\": 1}}\n{\"id\": 2, \"text\": \"two \\u00e9\"}\n";

/// A temporary folder.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn open(&self, name: &str) -> Result<Corpus, DataError> {
        Corpus::open(self.path(name).to_str().unwrap(), "text")
    }

    pub fn read(&self, name: &str) -> Result<Vec<Document>, DataError> {
        self.open(name)?.documents().collect()
    }

    /// Sources and texts of the documents.
    pub fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let documents = self.read(name).unwrap();
        documents.into_iter().map(|d| (d.source, d.text)).collect()
    }

    pub fn sources(&self, name: &str) -> Vec<String> {
        let documents = self.read(name).unwrap();
        documents.into_iter().map(|d| d.source).collect()
    }

    /// Checks that reading fails with a message that has all the parts.
    #[track_caller]
    pub fn check_error(&self, name: &str, parts: &[&str]) {
        let message = self.read(name).expect_err("a mistake").to_string();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    }
}

/// What [`Folder::pairs`] should return.
pub fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|&(source, text)| (source.into(), text.into()))
        .collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
