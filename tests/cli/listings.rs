//! `tokenize`, `list` and `devices`.

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
    let dir = tempfile::tempdir().unwrap();
    let methods = succeed(dir.path(), &["list", "methods"]);
    for method in longspan_rope::METHODS {
        let row = format!("\n{:<15} ", method.name());
        assert!(methods.contains(&row), "{row} in {methods}");
    }
    let tasks = succeed(dir.path(), &["list", "tasks"]);
    for task in longspan_data::NeedleTask::presets() {
        let row = format!("name = {:?}\n", task.name);
        assert!(tasks.contains(&row), "{row} in {tasks}");
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
