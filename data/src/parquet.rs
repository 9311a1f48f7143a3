//! The text column of Parquet files.

use std::cell::Cell;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::document::{Document, Documents};
use crate::error::DataError;

/// Reads a Parquet file as one document per row, skipping rows without a value.
pub(crate) fn rows<'a>(
    path: &'a Path,
    name: String,
    field: &'a str,
) -> Result<Documents<'a>, DataError> {
    let file = File::open(path).map_err(|reason| DataError::Io {
        path: path.to_owned(),
        reason,
    })?;
    let file = guarded(path, || SerializedFileReader::new(file))?;
    let column = find_column(path, file.metadata().file_metadata().schema_descr(), field)?;
    let rows = Rows {
        path,
        name,
        field,
        file,
        column,
        next_group: 0,
        group: None,
        rows_left: 0,
        row: 0,
        values: Vec::new(),
        levels: Vec::new(),
    };
    Ok(Box::new(rows))
}

/// The iterator of [`rows`].
struct Rows<'a> {
    path: &'a Path,
    name: String,
    field: &'a str,
    file: SerializedFileReader<File>,
    column: usize,
    next_group: usize,
    group: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Unread rows of the current group.
    rows_left: i64,
    /// Rows read so far, in all groups.
    row: usize,
    values: Vec<ByteArray>,
    /// Definition levels: 1 for a value, 0 for a null. The reader needs a buffer for them.
    levels: Vec<i16>,
}

impl Rows<'_> {
    /// The next value of the column: `Some(None)` for a null, `None` at the end of the file.
    fn next_value(&mut self) -> Result<Option<Option<ByteArray>>, ParquetError> {
        while self.rows_left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(None);
            }
            let group = self.file.get_row_group(self.next_group)?;
            self.rows_left = group.metadata().num_rows();
            let reader = group.get_column_reader(self.column)?;
            self.group = Some(get_typed_column_reader(reader));
            self.next_group += 1;
        }
        self.values.clear();
        self.levels.clear();
        let reader = self.group.as_mut().expect("a group with rows left is open");
        let (records, ..) =
            reader.read_records(1, Some(&mut self.levels), None, &mut self.values)?;
        if records == 0 {
            let missing = format!(
                "row group {} ends {} rows early",
                self.next_group, self.rows_left
            );
            return Err(ParquetError::General(missing));
        }
        self.rows_left -= 1;
        self.row += 1;
        Ok(Some(self.values.pop()))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let value = match guarded(self.path, || self.next_value()) {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(None)) => continue,
                Ok(Some(Some(value))) => value,
            };
            let document = match str::from_utf8(value.data()) {
                Ok(text) => Ok(Document {
                    source: format!("{} row {}", self.name, self.row),
                    text: text.to_owned(),
                }),
                Err(error) => Err(DataError::RowNotUtf8 {
                    path: self.path.to_owned(),
                    row: self.row,
                    column: self.field.to_owned(),
                    offset: error.valid_up_to(),
                }),
            };
            return Some(document);
        }
    }
}

/// The index of the text column, which must be a plain column of byte arrays.
fn find_column(path: &Path, schema: &SchemaDescriptor, field: &str) -> Result<usize, DataError> {
    let columns = schema.columns();
    let Some(index) = columns.iter().position(|c| c.path().parts()[0] == field) else {
        let found: Vec<String> = columns.iter().map(|c| c.path().string()).collect();
        return Err(DataError::MissingColumn {
            path: path.to_owned(),
            column: field.to_owned(),
            found: found.join(", "),
        });
    };
    let column = &columns[index];
    let found = if column.path().parts().len() > 1 {
        format!("nested ({})", column.path().string())
    } else if column.max_rep_level() > 0 {
        "repeated".to_owned()
    } else if column.physical_type() != Type::BYTE_ARRAY {
        column.physical_type().to_string()
    } else {
        return Ok(index);
    };
    Err(DataError::ColumnNotText {
        path: path.to_owned(),
        column: field.to_owned(),
        found,
    })
}

thread_local! {
    /// True while this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls the Parquet crate, which panics on some damaged files. A panic becomes an error, and
/// nothing is printed.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    silence_guarded_panics();
    GUARDED.set(true);
    // After a panic the reader is in an unknown state; the error that follows ends the corpus, and
    // the reader is not used again.
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    let reason = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the file is damaged".to_owned(),
    };
    Err(DataError::Parquet {
        path: path.to_owned(),
        reason,
    })
}

/// Installs, once per process, a panic hook that ignores panics inside [`guarded`] and passes all
/// others to the hook that was installed before.
fn silence_guarded_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
}
