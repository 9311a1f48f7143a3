use std::collections::HashSet;
use std::env;
use std::fs;
use std::iter;
use std::path::{Component, Path, PathBuf};

use crate::text::Compression;
use crate::{DataError, articles, parquet, text};

/// The corpus of generated articles, as [`Corpus::open`] takes it.
pub const BUILTIN_ARTICLES: &str = "builtin:articles";
pub(crate) const KNOWN_EXTENSIONS: &str =
    ".txt, .jsonl, both also with .gz or .zst after it, and .parquet";

/// One text and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file, relative to the folder the corpus was opened at, and the place in it, both counted
    /// from 1: `b/notes.txt`, `train.jsonl.zst:17` or `train.parquet row 3`.
    pub source: String,
    /// The text.
    pub text: String,
}

pub(crate) type Documents<'a> = Box<dyn Iterator<Item = Result<Document, DataError>> + Send + 'a>;

/// A sequence of documents, streamed from files or generated.
pub struct Corpus {
    files: Vec<PathBuf>,
    folder: PathBuf,
    text_field: String,
}

impl Corpus {
    /// Finds the files of a corpus; none is read yet.
    ///
    /// `spec` is a file, a folder, a pattern such as `arxiv/**/*.jsonl.zst`, or `builtin:articles`. A
    /// folder gives the files of known extensions in it and below, without hidden ones and without
    /// following links to folders. Files are taken in the order of their paths.
    ///
    /// `text_field` is the JSON field or Parquet column that holds the text, usually `text`.
    pub fn open(spec: &str, text_field: &str) -> Result<Self, DataError> {
        let path = Path::new(spec);
        let (folder, mut files) = if spec.starts_with("builtin:") {
            if spec != BUILTIN_ARTICLES {
                return Err(DataError::UnknownBuiltin {
                    spec: spec.to_owned(),
                });
            }
            (PathBuf::new(), Vec::new())
        } else if path.is_dir() {
            let mut files = Vec::new();
            find_files(path, &mut files)?;
            if files.is_empty() {
                return Err(DataError::NoCorpusFiles {
                    path: path.to_owned(),
                });
            }
            (path.to_owned(), files)
        } else if path.exists() {
            let folder = path.parent().unwrap_or(Path::new(""));
            (folder.to_owned(), vec![path.to_owned()])
        } else if spec.contains(['*', '?', '[']) {
            (fixed_part(path), match_files(spec)?)
        } else {
            return Err(DataError::NoSuchPath {
                spec: spec.to_owned(),
                current: current_folder(),
            });
        };
        files.sort();
        files.dedup();
        for path in &files {
            if Format::of(path).is_none() {
                return Err(DataError::UnknownExtension { path: path.clone() });
            }
        }
        Ok(Self {
            files,
            folder,
            text_field: text_field.to_owned(),
        })
    }

    /// The files in the order they are read; none for a built-in corpus.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads the documents from the first file on, one at a time. The first error ends the sequence.
    pub fn documents(&self) -> Box<dyn Iterator<Item = Result<Document, DataError>> + Send + '_> {
        if self.files.is_empty() {
            return Box::new(articles::documents().map(Ok));
        }
        let all = self.files.iter().flat_map(|path| {
            self.read(path)
                .unwrap_or_else(|error| Box::new(iter::once(Err(error))))
        });
        Box::new(all.scan(false, |failed, document| {
            if *failed {
                return None;
            }
            *failed = document.is_err();
            Some(document)
        }))
    }

    fn read<'a>(&'a self, path: &'a Path) -> Result<Documents<'a>, DataError> {
        let name = self.name(path);
        let field = &self.text_field;
        match Format::of(path) {
            Some(Format::Text(compression)) => text::whole_file(path, name, compression),
            Some(Format::JsonLines(compression)) => {
                text::json_lines(path, name, compression, field)
            }
            Some(Format::Parquet) => parquet::rows(path, name, field),
            None => unreachable!("`open` admits known extensions only"),
        }
    }

    /// The path below the corpus folder, the same on every machine.
    fn name(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.folder).unwrap_or(path);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

enum Format {
    Text(Compression),
    JsonLines(Compression),
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
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

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let error = |reason| DataError::Io {
        path: folder.to_owned(),
        reason,
    };
    for entry in fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(error)?.is_dir() {
            find_files(&path, files)?;
        } else if !path.is_dir() && Format::of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn match_files(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        // The default is without regard to case.
        ..glob::MatchOptions::new()
    };
    let paths = glob::glob_with(pattern, options).map_err(|error| DataError::BadPattern {
        pattern: pattern.to_owned(),
        reason: error.msg.to_owned(),
    })?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| DataError::Io {
            path: error.path().to_owned(),
            reason: error.into(),
        })?;
        if !path.is_dir() {
            files.push(path);
        }
    }
    // `**` follows links to folders, and may come to the same file by several ways.
    let mut seen = HashSet::new();
    files.retain(|path| path.canonicalize().map_or(true, |path| seen.insert(path)));
    if files.is_empty() {
        return Err(DataError::NoMatch {
            pattern: pattern.to_owned(),
            current: current_folder(),
        });
    }
    Ok(files)
}

/// The folders of a pattern before its first wildcard.
fn fixed_part(pattern: &Path) -> PathBuf {
    let has_wildcard =
        |part: &Component| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    pattern
        .components()
        .take_while(|part| !has_wildcard(part))
        .collect()
}

fn current_folder() -> PathBuf {
    env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}
