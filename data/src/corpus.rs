//! Corpora: documents from files or from the built-in articles.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::iter;
use std::path::{Component, Path, PathBuf};

use crate::document::{Document, Documents};
use crate::error::DataError;
use crate::format::Format;
use crate::{articles, parquet, text};

/// The name under which [`Corpus::open`] takes the corpus of generated articles.
pub const BUILTIN_ARTICLES: &str = "builtin:articles";

/// A sequence of documents, streamed from files or generated.
pub struct Corpus {
    files: Vec<PathBuf>,
    folder: PathBuf,
    text_field: String,
}

impl Corpus {
    /// Finds the files of a corpus without reading them.
    ///
    /// `spec` is a file, a folder, a pattern such as `arxiv/**/*.jsonl.zst`, or `builtin:articles`.
    /// A folder stands for all files with a known extension in it and below, except hidden ones;
    /// links to folders are not followed. Files are sorted by path.
    ///
    /// `text_field` is the JSON field or Parquet column that holds the text, usually `text`.
    ///
    /// # Errors
    /// A path or pattern that leads to no file, a folder that cannot be read, an unknown extension
    /// or built-in corpus.
    pub fn open(spec: &str, text_field: &str) -> Result<Self, DataError> {
        let path = Path::new(spec);
        let (folder, mut files) = if spec.starts_with("builtin:") {
            if spec != BUILTIN_ARTICLES {
                return Err(DataError::UnknownBuiltin {
                    spec: spec.to_owned(),
                    known: BUILTIN_ARTICLES,
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

    /// The files in reading order; empty for a built-in corpus.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads the documents in order, one at a time. The first error ends the sequence.
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

    /// The path relative to the corpus folder, with `/` on every system.
    fn name(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.folder).unwrap_or(path);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

/// Adds the corpus files in a folder and below, without hidden ones.
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

/// The files that match a pattern, each once.
fn match_files(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        // The default ignores case.
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
    // `**` follows links to folders and may reach a file by several paths.
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
