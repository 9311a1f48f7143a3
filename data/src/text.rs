//! Plain text and JSON Lines, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::document::{Document, Documents};
use crate::error::DataError;
use crate::format::Compression;

/// Log2 of the largest window of `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 31;
/// Some editors put it at the start of every file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a text file as one document.
pub(crate) fn whole_file<'a>(
    path: &'a Path,
    name: String,
    compression: Compression,
) -> Result<Documents<'a>, DataError> {
    let mut reader = open(path, compression)?;
    // The file is opened here and read on demand.
    let read = move || {
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|reason| read_error(path, compression, reason))?;
        let text = decode(path, 1, &bytes)?.to_owned();
        Ok(Document { source: name, text })
    };
    Ok(Box::new(iter::once_with(read)))
}

/// Reads a JSON Lines file as one document per line, skipping blank lines.
pub(crate) fn json_lines<'a>(
    path: &'a Path,
    name: String,
    compression: Compression,
    field: &'a str,
) -> Result<Documents<'a>, DataError> {
    let mut reader = open(path, compression)?;
    let mut bytes = Vec::new();
    let mut line = 0;
    Ok(Box::new(iter::from_fn(move || {
        loop {
            bytes.clear();
            line += 1;
            match reader.read_until(b'\n', &mut bytes) {
                Err(reason) => return Some(Err(read_error(path, compression, reason))),
                Ok(0) => return None,
                Ok(_) if line == 1 && bytes.trim_ascii() == BYTE_ORDER_MARK => continue,
                Ok(_) if bytes.trim_ascii().is_empty() => continue,
                Ok(_) => {
                    let text = text_field(path, line, &bytes, field);
                    let source = format!("{name}:{line}");
                    return Some(text.map(|text| Document { source, text }));
                }
            }
        }
    })))
}

/// The text in a field of the JSON object on a line.
fn text_field(path: &Path, line: usize, bytes: &[u8], field: &str) -> Result<String, DataError> {
    let json_error = |reason: String| DataError::Json {
        path: path.to_owned(),
        line,
        reason,
    };
    let text = decode(path, line, bytes)?.trim_ascii_end();
    let value: Value = serde_json::from_str(text).map_err(|error| {
        // The parser sees one line, so its line number is always 1.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        json_error(format!("{what} at column {}", error.column()))
    })?;
    let mut object: Map<String, Value> = match value {
        Value::Object(object) => object,
        other => return Err(json_error(format!("it is {}", kind(&other)))),
    };
    match object.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(DataError::FieldNotString {
            path: path.to_owned(),
            line,
            field: field.to_owned(),
            found: kind(&other),
        }),
        None => {
            let names: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(DataError::MissingField {
                path: path.to_owned(),
                line,
                field: field.to_owned(),
                found: if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ")
                },
            })
        }
    }
}

/// The type of a JSON value, for error messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn open(path: &Path, compression: Compression) -> Result<Box<dyn BufRead + Send>, DataError> {
    let error = |reason| read_error(path, Compression::None, reason);
    let file = BufReader::new(File::open(path).map_err(error)?);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(file).map_err(error)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(error)?;
            Box::new(BufReader::new(decoder))
        }
    })
}

fn read_error(path: &Path, compression: Compression, reason: io::Error) -> DataError {
    let path = path.to_owned();
    let format = match compression {
        Compression::None => return DataError::Io { path, reason },
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    DataError::Compressed {
        path,
        format,
        reason,
    }
}

/// Decodes bytes that start at line `line` of a file; a byte order mark on line 1 is dropped.
fn decode<'a>(path: &Path, line: usize, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line_start = valid
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        DataError::NotUtf8 {
            path: path.to_owned(),
            line: line + valid.iter().filter(|&&byte| byte == b'\n').count(),
            offset: valid.len() - line_start,
        }
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) if line == 1 => rest,
        _ => text,
    })
}
