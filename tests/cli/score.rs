//! `score`: parity with the reference through the program, and where the output goes.

use std::path::Path;

use serde_json::{Value, json};

use crate::shared::{Expected, cases, golden, json_lines, longspan, method, succeed};

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);

fn score(dir: &Path, model: &str, args: &[&str]) {
    let all = ["score", "--model", model, "--methods", "methods.toml"];
    let tokens = ["--tokens", "ids.jsonl"];
    succeed(dir, &[&all[..], &tokens, args].concat());
}

/// Every case of one length as a method over two documents, followed by an empty one; returns the
/// errors on all tokens.
fn errors(dir: &Path, model: &str, expected: &Expected, cases: &[Value], n: usize) -> Vec<f64> {
    let methods: Vec<Value> = cases.iter().map(method).collect();
    let methods = toml::to_string(&json!({"method": methods})).unwrap();
    std::fs::write(dir.join("methods.toml"), methods).unwrap();
    let ids = expected.ids(&format!("ids.{n}"));
    let lines = format!("{:?}\n{:?}\n[]\n", &ids[..n], &ids[n..]);
    std::fs::write(dir.join("ids.jsonl"), lines).unwrap();
    score(dir, model, &["--out", "nll.jsonl"]);
    let lines = json_lines(&dir.join("nll.jsonl"));
    assert_eq!(lines.len(), 3 * cases.len());
    let mut errors = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let (case, doc) = (&cases[at / 3]["case"], at % 3);
        assert_eq!((&line["method"], &line["doc"]), (case, &json!(doc)));
        let tokens = if doc == 2 { 0 } else { n };
        assert_eq!(line["tokens"], json!(tokens));
        let nll = line["nll"].as_array().unwrap();
        assert_eq!(nll.len(), tokens.saturating_sub(1));
        if nll.is_empty() {
            continue;
        }
        let case = case.as_str().unwrap();
        let want = expected.values(&format!("nll.{case}.{n}"));
        for (got, want) in nll.iter().zip(&want[doc * (n - 1)..]) {
            let error = (got.as_f64().unwrap() - want).abs();
            assert!(error < NLL.1, "{case} {n}: {got} against {want}");
            errors.push(error);
        }
    }
    errors
}

#[test]
fn score_equals_the_reference() {
    let folder = golden("micro");
    let dir = tempfile::tempdir().unwrap();
    let expected = Expected::read(&folder);
    let model = folder.to_string_lossy();
    let mut all = Vec::new();
    for length in [1, 33, 64, 65, 128, 129, 500] {
        let mut cases = cases(&folder);
        cases.retain(|case| case["length"] == json!(length));
        assert_eq!(cases.len(), 14);
        all.extend(errors(dir.path(), &model, &expected, &cases, length));
    }
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!(
        all.len() > 20_000 && mean < NLL.0,
        "{mean} over {}",
        all.len()
    );

    // One method alone gives the lines that it has among all.
    let one = ["--method", "linear_x4", "--out", "one.jsonl"];
    score(dir.path(), &model, &one);
    let mut of_method = json_lines(&dir.path().join("nll.jsonl"));
    of_method.retain(|line| line["method"] == json!("linear_x4"));
    assert_eq!(json_lines(&dir.path().join("one.jsonl")), of_method);
}

/// The target of a link is written and the link stays. A closed pipe is not an error.
#[cfg(unix)]
#[test]
fn scores_go_through_links_and_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("methods.toml", "[[method]]\nname = \"plain\"\n");
    write("ids.jsonl", &"[1, 2, 3, 4]\n".repeat(3000));
    write("target.jsonl", "");
    std::os::unix::fs::symlink("target.jsonl", dir.path().join("link.jsonl")).unwrap();
    score(dir.path(), "builtin:random", &["--out", "link.jsonl"]);
    let link = dir.path().join("link.jsonl");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(json_lines(&dir.path().join("target.jsonl")).len(), 3000);

    let args = "score --model builtin:random --methods methods.toml --tokens ids.jsonl";
    let mut child = longspan()
        .current_dir(dir.path())
        .args(args.split(' ').chain(["--out", "/dev/stdout"]))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error"), "{error}");
}
