//! Append-only files of records, one JSON object a line, that survive a kill at any moment.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::Record;

/// A file of records that is open for appending.
pub struct Log<R> {
    /// `None`: records stay in memory.
    path: Option<PathBuf>,
    /// Created with the first record.
    file: Option<File>,
    /// Records found and written.
    pub records: Vec<R>,
    /// How the file ended when it was read.
    end: End,
}

/// Opens or creates a file of records.
///
/// # Errors
/// The file cannot be written.
pub fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).open(path);
    file.with_context(|| format!("{}: cannot be written", path.display()))
}

/// The records of a file that is only read.
///
/// # Errors
/// No such file, or a damaged one.
pub fn load<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
    let mut file = File::open(path)
        .with_context(|| format!("{}: no records; is this a run folder?", path.display()))?;
    let (records, end) = read(path, &mut file)?;
    end.warn(path);
    Ok(records)
}

impl<R: Record> Log<R> {
    /// No file.
    pub fn in_memory() -> Self {
        Log {
            path: None,
            file: None,
            records: Vec::new(),
            end: End::default(),
        }
    }

    /// Reads the records of an opened file without changing it; without a file there are none yet.
    ///
    /// # Errors
    /// A line that is not a record; the last one may be cut short.
    pub fn read(path: &Path, mut file: Option<File>) -> Result<Self> {
        let (records, end) = match &mut file {
            Some(file) => read(path, file)?,
            None => Default::default(),
        };
        Ok(Self {
            path: Some(path.to_owned()),
            file,
            records,
            end,
        })
    }

    /// Makes the file end with a whole line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn mend(&mut self) -> Result<()> {
        let end = std::mem::take(&mut self.end);
        let (Some(path), Some(file)) = (&self.path, &mut self.file) else {
            return Ok(());
        };
        end.warn(path);
        let mend = |file: &mut File| -> std::io::Result<()> {
            if end.cut > 0 {
                file.set_len(end.whole)?;
            }
            if end.unterminated {
                file.write_all(b"\n")?;
            }
            file.sync_data()
        };
        mend(file).with_context(|| path.display().to_string())
    }

    /// True if a cell has its record under a method's name: two names with the same settings share
    /// a key, and each has its row.
    pub fn has(&self, key: &str, method: &str) -> bool {
        let mut records = self.records.iter().map(R::provenance);
        records.any(|record| record.key == key && record.method == method)
    }

    /// Appends a record and waits until it is on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, record: R) -> Result<()> {
        if let Some(path) = &self.path {
            let line = serde_json::to_string(&record)? + "\n";
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(open(path)?),
            };
            file.write_all(line.as_bytes())
                .and_then(|()| file.sync_data())
                .with_context(|| path.display().to_string())?;
        }
        self.records.push(record);
        Ok(())
    }
}

/// How a file of records ends.
#[derive(Default)]
struct End {
    /// Bytes of whole records.
    whole: u64,
    /// Bytes after them, of a record that a kill cut short.
    cut: u64,
    /// True if the last whole record lacks its line end.
    unterminated: bool,
}

impl End {
    fn warn(&self, path: &Path) {
        if self.cut > 0 {
            ::log::warn!(
                "{}: the last line is cut short ({} bytes) and dropped; its cell has no number",
                path.display(),
                self.cut
            );
        }
    }
}

fn read<R: DeserializeOwned>(path: &Path, file: &mut File) -> Result<(Vec<R>, End)> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .with_context(|| path.display().to_string())?;
    let end = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |end| end + 1);
    let mut records = Vec::new();
    for (number, line) in bytes[..end].split(|&b| b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let record = serde_json::from_slice(line).with_context(|| {
            format!(
                "{}:{}: damaged, or of another version; delete the line, and its cell is computed again",
                path.display(),
                number + 1
            )
        })?;
        records.push(record);
    }
    let tail: Option<R> = serde_json::from_slice(&bytes[end..]).ok();
    let unterminated = tail.is_some();
    records.extend(tail);
    let whole = if unterminated { bytes.len() } else { end };
    let end = End {
        whole: whole as u64,
        cut: (bytes.len() - whole) as u64,
        unterminated,
    };
    Ok((records, end))
}
