//! `tokenize`, `list` and `devices`.

use longspan::figures::FIGURES;
use longspan::protocols::PROTOCOLS;
use longspan::tasks::TASKS;
use longspan_attention::{PATTERNS, SCALES};
use longspan_model::FAMILIES;
use longspan_rope::{METHODS, Variant};

use crate::shared::{succeed, write_vocabulary};

#[test]
fn tokenize_round_trips() {
    let dir = tempfile::tempdir().unwrap();
    write_vocabulary(&dir.path().join("bytes.tiktoken"));
    let tokenize = |args: &[&str]| {
        let all = ["tokenize", "--tokenizer", "bytes.tiktoken"];
        succeed(dir.path(), &[&all[..], args].concat())
    };
    let ids = tokenize(&["caf\u{e9}<|im_end|>"]);
    assert_eq!(
        ids,
        "[99,97,102,195,169,60,124,105,109,95,101,110,100,124,62]\n"
    );
    assert_eq!(tokenize(&["--special", "a<|im_end|>"]), "[97,258]\n");
    let text = tokenize(&["--decode", ids.trim()]);
    assert_eq!(text, "caf\u{e9}<|im_end|>\n");
}

#[test]
fn everything_registered_is_listed() {
    fn rows<V: Variant + ?Sized>(variants: &[&V]) -> Vec<String> {
        let names = variants.iter().map(|variant| variant.name());
        names.map(|name| format!("\n{name:<15} ")).collect()
    }
    let dir = tempfile::tempdir().unwrap();
    let figures = FIGURES.iter().map(|figure| figure.stem());
    let all = [
        ("methods", rows(METHODS)),
        ("patterns", rows(PATTERNS)),
        ("scales", rows(SCALES)),
        ("protocols", rows(PROTOCOLS)),
        ("tasks", rows(TASKS)),
        ("families", rows(FAMILIES)),
        (
            "figures",
            figures.map(|stem| format!("\n{stem:<15} ")).collect(),
        ),
    ];
    let everything = succeed(dir.path(), &["list"]);
    for (axis, rows) in all {
        let list = succeed(dir.path(), &["list", axis]);
        assert!(everything.contains(&list), "{axis}");
        for row in rows {
            assert!(list.contains(&row), "{row} in {list}");
        }
    }
}

#[test]
fn devices_are_listed_with_the_features_that_others_need() {
    let dir = tempfile::tempdir().unwrap();
    let stdout = succeed(dir.path(), &["devices"]);
    assert!(stdout.starts_with("cpu "), "{stdout}");
    assert!(stdout.contains("--features rocm"), "{stdout}");
    assert_eq!(stdout.contains("--features wgpu"), !cfg!(feature = "wgpu"));
}
