//! The text column of Parquet files.

use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::corpus::Documents;
use crate::{DataError, Document};

/// A Parquet file as one document a row; rows without a value are skipped.
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

struct Rows<'a> {
    path: &'a Path,
    name: String,
    field: &'a str,
    file: SerializedFileReader<File>,
    column: usize,
    next_group: usize,
    group: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows of the current group not yet read.
    rows_left: i64,
    /// Rows read so far, over all groups.
    row: usize,
    values: Vec<ByteArray>,
    /// 1 where an optional column has a value, 0 where it is null; the reader wants a place for them.
    levels: Vec<i16>,
}

impl Rows<'_> {
    /// The next value in the column, a null being `Some(None)`.
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

/// Runs the Parquet reader, which panics on some damaged files instead of returning an error.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let reason = match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the file is damaged".to_owned(),
    };
    Err(DataError::Parquet {
        path: path.to_owned(),
        reason,
    })
}
