//! Folders, patterns and the order of files.

use longspan_data::Corpus;

use crate::folder::{Folder, TWO_LINES, gzip};

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

/// Patterns are case-sensitive, and a file reached again through links is read once.
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
