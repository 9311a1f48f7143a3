//! Plain text and JSON Lines, compressed or not.

use longspan_data::Corpus;

use crate::folder::{Folder, TWO_LINES, gzip, pairs, zstd};

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
