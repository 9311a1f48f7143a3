//! Parquet files, intact and damaged.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use longspan_data::Corpus;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::folder::{Folder, pairs};

/// Writes row groups with a column of numbers and a `text` column, in which `None` is a null.
fn write_parquet(path: &Path, groups: &[&[Option<&[u8]>]], compression: Compression) {
    let optional = groups.iter().any(|group| group.contains(&None));
    let kind = if optional { "OPTIONAL" } else { "REQUIRED" };
    let schema = format!("message m {{ REQUIRED INT64 id; {kind} BYTE_ARRAY text (STRING); }}");
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer = SerializedFileWriter::new(
        File::create(path).unwrap(),
        Arc::new(parse_message_type(&schema).unwrap()),
        Arc::new(properties),
    )
    .unwrap();
    for group in groups {
        let mut row_group = writer.next_row_group().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        let ids: Vec<i64> = (0..group.len() as i64).collect();
        column
            .typed::<Int64Type>()
            .write_batch(&ids, None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = group
            .iter()
            .flatten()
            .map(|value| ByteArray::from(*value))
            .collect();
        let levels: Vec<i16> = group.iter().map(|value| value.is_some().into()).collect();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, optional.then_some(&levels[..]), None)
            .unwrap();
        column.close().unwrap();
        row_group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_rows_are_a_document_each() {
    let folder = Folder::new();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd] {
        let required: &[&[Option<&[u8]>]] = &[&[Some(b"a"), Some("é".as_bytes())], &[Some(b"c")]];
        write_parquet(&folder.path("a.parquet"), required, compression);
        assert_eq!(
            folder.pairs("a.parquet"),
            pairs(&[
                ("a.parquet row 1", "a"),
                ("a.parquet row 2", "é"),
                ("a.parquet row 3", "c")
            ])
        );
        let optional: &[&[Option<&[u8]>]] = &[
            &[None, Some(b"b"), None],
            &[],
            &[Some(b"d"), Some(b""), None],
        ];
        write_parquet(&folder.path("b.parquet"), optional, compression);
        assert_eq!(
            folder.pairs("b.parquet"),
            pairs(&[
                ("b.parquet row 2", "b"),
                ("b.parquet row 4", "d"),
                ("b.parquet row 5", "")
            ])
        );
    }
}

#[test]
fn parquet_pages_keep_long_documents_apart() {
    let folder = Folder::new();
    let texts: Vec<String> = (0..40).map(|i| format!("{i} ").repeat(100_000)).collect();
    let group: Vec<Option<&[u8]>> = texts.iter().map(|text| Some(text.as_bytes())).collect();
    write_parquet(&folder.path("a.parquet"), &[&group], Compression::SNAPPY);
    let read: Vec<String> = folder
        .pairs("a.parquet")
        .into_iter()
        .map(|pair| pair.1)
        .collect();
    assert_eq!(read, texts);
}

#[test]
fn wrong_parquet_is_explained() {
    let folder = Folder::new();
    let path = folder.path("a.parquet");
    write_parquet(&path, &[&[Some(b"x"), Some(b"y\xff")]], Compression::SNAPPY);
    folder.check_error(
        "a.parquet",
        &["a.parquet row 2: column \"text\" is not UTF-8 at byte 1"],
    );
    for (field, part) in [
        ("body", "no column \"body\"; columns found: id, text"),
        ("id", "column \"id\" is INT64, not a plain string column"),
    ] {
        let corpus = Corpus::open(path.to_str().unwrap(), field).unwrap();
        let message = corpus.documents().next().unwrap().unwrap_err().to_string();
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    folder.write("b.parquet", "not parquet at all");
    folder.check_error(
        "b.parquet",
        &["b.parquet: cannot read this Parquet file", "write it again"],
    );
    folder.write("b.parquet", "");
    folder.check_error("b.parquet", &["b.parquet: cannot read this Parquet file"]);
}

/// Truncates a Parquet file at every byte and flips bits in every byte. Returns the number of files
/// that made the Parquet crate panic.
fn read_damaged_files() -> usize {
    let folder = Folder::new();
    let path = folder.path("a.parquet");
    let mut panics = 0;
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let groups: &[&[Option<&[u8]>]] = &[&[Some(b"some text"), None], &[Some(b"more text")]];
        write_parquet(&path, groups, compression);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            folder.write("b.parquet", &good[..at]);
            folder.check_error("b.parquet", &["b.parquet: cannot read this Parquet file"]);
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                folder.write("b.parquet", bad);
                if let Err(error) = folder.read("b.parquet") {
                    panics += usize::from(error.to_string().contains("the file is damaged"));
                }
            }
        }
    }
    panics
}

/// Runs in a process of its own, because the panic hook and standard error belong to the process.
#[test]
fn damaged_parquet_gives_errors_and_prints_nothing() {
    const CHILD: &str = "LONGSPAN_TEST_DAMAGED_PARQUET";
    if env::var_os(CHILD).is_some() {
        assert!(read_damaged_files() > 0, "no file made the reader panic");
        panic!("a panic outside the reader");
    }
    let name = "parquet_files::damaged_parquet_gives_errors_and_prints_nothing";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("a panic outside the reader"), "{printed}");
    assert_eq!(printed.matches("panicked at").count(), 1, "{printed}");
}
