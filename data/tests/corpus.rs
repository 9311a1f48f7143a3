//! Every corpus format, the order of files, and what each mistake is told.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::write::GzEncoder;
use longspan_data::{Corpus, DataError, Document};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

const TWO_LINES: &str =
    "{\"text\": \"one\", \"meta\": {\"id\": 1}}\n{\"id\": 2, \"text\": \"two \\u00e9\"}\n";

/// A folder of test files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn open(&self, name: &str) -> Result<Corpus, DataError> {
        Corpus::open(self.path(name).to_str().unwrap(), "text")
    }

    fn read(&self, name: &str) -> Result<Vec<Document>, DataError> {
        self.open(name)?.documents().collect()
    }

    /// Sources and texts of the documents.
    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let documents = self.read(name).unwrap();
        documents.into_iter().map(|d| (d.source, d.text)).collect()
    }

    fn sources(&self, name: &str) -> Vec<String> {
        self.pairs(name)
            .into_iter()
            .map(|(source, _)| source)
            .collect()
    }

    #[track_caller]
    fn check_error(&self, name: &str, parts: &[&str]) {
        let message = self.read(name).expect_err("a mistake").to_string();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|&(source, text)| (source.into(), text.into()))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Two row groups of a `text` column and, before it, a column of numbers; `None` is a null.
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
fn text_files_are_one_document() {
    let folder = Folder::new();
    folder.write("a.txt", "first\r\nsecond\n");
    assert_eq!(
        folder.pairs("a.txt"),
        pairs(&[("a.txt", "first\r\nsecond\n")])
    );
    folder
        .write("b.txt.gz", gzip(b"zipped"))
        .write("c.TXT.zst", zstd(b"\xef\xbb\xbfmarked"));
    assert_eq!(folder.pairs("b.txt.gz"), pairs(&[("b.txt.gz", "zipped")]));
    assert_eq!(folder.pairs("c.TXT.zst"), pairs(&[("c.TXT.zst", "marked")]));
}

#[test]
fn json_lines_are_a_document_each() {
    let folder = Folder::new();
    let expected = |name: &str| {
        pairs(&[
            (&format!("{name}:1"), "one"),
            (&format!("{name}:2"), "two é"),
        ])
    };
    let bytes = TWO_LINES.as_bytes();
    folder
        .write("a.jsonl", TWO_LINES)
        .write("a.jsonl.gz", gzip(bytes))
        .write("a.jsonl.zst", zstd(bytes))
        .write("crlf.jsonl", TWO_LINES.replace('\n', "\r\n"))
        .write("open.jsonl", TWO_LINES.trim_end())
        .write("marked.jsonl", format!("\u{feff}{TWO_LINES}"));
    for name in [
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "crlf.jsonl",
        "open.jsonl",
        "marked.jsonl",
    ] {
        assert_eq!(folder.pairs(name), expected(name));
    }
}

#[test]
fn blank_lines_are_skipped_but_counted() {
    let folder = Folder::new();
    folder.write("a.jsonl", "\n{\"text\":\"x\"}\n  \r\n\n{\"text\":\"\"}\n\n");
    assert_eq!(
        folder.pairs("a.jsonl"),
        pairs(&[("a.jsonl:2", "x"), ("a.jsonl:5", "")])
    );
}

#[test]
fn a_byte_order_mark_alone_is_no_text() {
    let folder = Folder::new();
    folder
        .write("a.jsonl", "\u{feff}")
        .write("b.jsonl", "\u{feff}\n{\"text\":\"x\"}\n");
    assert_eq!(folder.pairs("a.jsonl"), []);
    assert_eq!(folder.pairs("b.jsonl"), pairs(&[("b.jsonl:2", "x")]));
}

/// Case counts, and a file that links lead to again is read once.
#[cfg(unix)]
#[test]
fn patterns_match_each_file_once() {
    let folder = Folder::new();
    folder.write("a/Train.txt", "x").write("a/test.txt", "y");
    std::os::unix::fs::symlink("a", folder.path("b")).unwrap();
    std::os::unix::fs::symlink(".", folder.path("a/loop")).unwrap();
    let texts = |pattern: &str| -> Vec<String> {
        let found = folder.pairs(pattern).into_iter();
        found.map(|(_, text)| text).collect()
    };
    assert_eq!(texts("**/*.txt"), ["x", "y"]);
    assert_eq!(texts("a/t*.txt"), ["y"]);
}

#[test]
fn compressed_files_may_have_several_parts() {
    let folder = Folder::new();
    let (a, b) = TWO_LINES.split_at(20);
    folder
        .write(
            "a.jsonl.gz",
            [gzip(a.as_bytes()), gzip(b.as_bytes())].concat(),
        )
        .write(
            "a.jsonl.zst",
            [zstd(a.as_bytes()), zstd(b.as_bytes())].concat(),
        );
    for name in ["a.jsonl.gz", "a.jsonl.zst"] {
        assert_eq!(folder.read(name).unwrap().len(), 2);
    }
}

#[test]
fn another_field_can_hold_the_text() {
    let folder = Folder::new();
    folder.write("a.jsonl", "{\"text\":\"x\",\"abstract\":\"y\"}\n");
    let corpus = Corpus::open(folder.path("a.jsonl").to_str().unwrap(), "abstract").unwrap();
    assert_eq!(corpus.documents().next().unwrap().unwrap().text, "y");
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
fn folders_are_read_in_the_order_of_paths() {
    let folder = Folder::new();
    folder
        .write("b/2.txt", "")
        .write("b/10.txt", "")
        .write("a.txt", "")
        .write("z.jsonl", TWO_LINES)
        .write("README.md", "not a corpus")
        .write(".hidden.txt", "")
        .write("c/d/e.txt.gz", gzip(b""));
    let expected = [
        "a.txt",
        "b/10.txt",
        "b/2.txt",
        "c/d/e.txt.gz",
        "z.jsonl:1",
        "z.jsonl:2",
    ];
    assert_eq!(folder.sources(""), expected);
    assert_eq!(folder.open("").unwrap().files().len(), 5);
}

#[test]
fn patterns_match_files() {
    let folder = Folder::new();
    folder
        .write("x/b.txt", "")
        .write("x/a.txt", "")
        .write("x/y/c.txt", "")
        .write("x/a.jsonl", "");
    assert_eq!(folder.sources("x/*.txt"), ["a.txt", "b.txt"]);
    assert_eq!(folder.sources("x/**/*.txt"), ["a.txt", "b.txt", "y/c.txt"]);
    assert_eq!(folder.sources("*/[ab].txt"), ["x/a.txt", "x/b.txt"]);
    folder.write("[1].txt", "a file may be named like a pattern");
    assert_eq!(folder.sources("[1].txt"), ["[1].txt"]);
}

#[test]
fn documents_are_read_one_at_a_time() {
    let folder = Folder::new();
    folder
        .write("a.jsonl", "{\"text\":\"x\"}\nbroken\n{\"text\":\"y\"}\n")
        .write("b.txt", "");
    let corpus = folder.open("").unwrap();
    let mut documents = corpus.documents();
    assert_eq!(documents.next().unwrap().unwrap().text, "x");
    assert!(documents.next().unwrap().is_err());
    assert!(
        documents.next().is_none(),
        "the first error ends the sequence"
    );
}

#[test]
fn wrong_paths_are_explained() {
    let folder = Folder::new();
    folder.write("a.md", "").write("sub/b.csv", "");
    folder.check_error(
        "none.txt",
        &[
            "none.txt: no such file or folder",
            "starts at the current folder",
        ],
    );
    folder.check_error("", &["no corpus file in this folder", ".jsonl", ".parquet"]);
    folder.check_error("a.md", &["a.md: unknown extension", ".jsonl", "convert"]);
    folder.check_error("*.md", &["a.md: unknown extension", "narrow the pattern"]);
    folder.check_error(
        "*.jsonl",
        &["*.jsonl: no file matches", "check the pattern"],
    );
    folder.check_error("a***", &["a***: not a valid pattern"]);
    let message = Corpus::open("builtin:novels", "text")
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("builtin:novels: no built-in corpus"),
        "{message}"
    );
    assert!(message.contains("builtin:articles"), "{message}");
}

#[test]
fn wrong_lines_are_explained() {
    let folder = Folder::new();
    let write = |line: &[u8]| {
        folder.write("a.jsonl", [b"{\"text\":\"x\"}\n\n", line, b"\n"].concat());
    };
    write(b"{\"text\": nope}");
    folder.check_error(
        "a.jsonl",
        &["a.jsonl:3: not a JSON object: expected ident at column"],
    );
    write(b"{\"text\": \"cut off");
    folder.check_error(
        "a.jsonl",
        &["a.jsonl:3: not a JSON object: EOF while parsing a string"],
    );
    write(b"[1]");
    folder.check_error("a.jsonl", &["a.jsonl:3: not a JSON object: it is an array"]);
    write(b"{\"body\": \"\", \"id\": 1}");
    folder.check_error(
        "a.jsonl",
        &["a.jsonl:3: no field \"text\"; fields found: body, id"],
    );
    write(b"{}");
    folder.check_error(
        "a.jsonl",
        &["a.jsonl:3: no field \"text\"; fields found: none"],
    );
    write(b"{\"text\": [\"x\"]}");
    folder.check_error(
        "a.jsonl",
        &["a.jsonl:3: field \"text\" is an array, not a string"],
    );
    write(b"{\"text\": \"\xff\"}");
    folder.check_error("a.jsonl", &["a.jsonl:3: not UTF-8 at byte 10 of the line"]);
    folder.write("b.txt", b"one\ntwo\xc3\n");
    folder.check_error("b.txt", &["b.txt:2: not UTF-8 at byte 3 of the line"]);
}

#[test]
fn damaged_compression_is_explained() {
    let folder = Folder::new();
    let long: String = (0..20_000)
        .map(|i| format!("{{\"text\":\"{}\"}}\n", i * i))
        .collect();
    for (name, bytes) in [
        ("gzip", gzip(long.as_bytes())),
        ("zstd", zstd(long.as_bytes())),
    ] {
        let file = if name == "gzip" {
            "a.jsonl.gz"
        } else {
            "a.jsonl.zst"
        };
        let says = format!("{file}: not a complete {name} file");
        for length in [0, 1, 5, bytes.len() / 2, bytes.len() - 1] {
            folder.write(file, &bytes[..length]);
            folder.check_error(file, &[&says, "fetch or compress it again"]);
        }
        folder.write(file, "{\"text\":\"not compressed\"}\n");
        folder.check_error(file, &[&says]);
    }
    folder.write("a.txt.gz", &gzip(b"cut off")[..20]);
    folder.check_error("a.txt.gz", &["a.txt.gz: not a complete gzip file"]);
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

#[test]
fn damaged_parquet_never_panics() {
    let folder = Folder::new();
    let path = folder.path("a.parquet");
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
                let _ = folder.read("b.parquet");
            }
        }
    }
}
