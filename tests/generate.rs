//! `generate`, `chat` and `profile`, run as a user runs them.

mod shared;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use shared::{longspan, run_in, succeed};

const PROMPT: &str = "\\documentclass{article}\n\\begin{document}\n\\begin{lemma}\\label{s:001}\n";

fn with_input(args: &[&str], input: &str) -> Output {
    let mut child = longspan()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn generate(args: &[&str]) -> String {
    let all = [&["generate", "--model", "builtin:tiny"], args].concat();
    succeed(Path::new("."), &all)
}

#[test]
fn a_prompt_is_gone_on_from() {
    let text = generate(&["--max-new-tokens", "30", PROMPT]);
    assert!(text.starts_with("The "), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), PROMPT).unwrap();
    let path = file.path().to_string_lossy();
    assert_eq!(generate(&["--max-new-tokens", "30", "--file", &path]), text);
    let args = [
        "generate",
        "--model",
        "builtin:tiny",
        "--max-new-tokens",
        "30",
    ];
    let piped = with_input(&args, PROMPT);
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), text);
    // Up to a stop word, which is not shown.
    let word = text.split(' ').nth(2).unwrap();
    let stopped = generate(&["--max-new-tokens", "30", "--stop", word, PROMPT]);
    assert_eq!(
        stopped.trim_end_matches('\n'),
        text.split_once(word).unwrap().0
    );
}

#[test]
fn draws_follow_the_seed() {
    let draw = |seed| {
        generate(&[
            "--max-new-tokens",
            "40",
            "--temperature",
            "1",
            "--seed",
            seed,
            PROMPT,
        ])
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn a_conversation_goes_on_until_its_end() {
    let args = [
        "chat",
        "--model",
        "builtin:tiny",
        "--max-new-tokens",
        "5",
        "--set",
        "window=64",
    ];
    for input in ["one\n/reset\ntwo\n/exit\nthree\n", "one\n\ntwo\n"] {
        let output = with_input(&args, input);
        assert!(output.status.success());
        let answers = String::from_utf8(output.stdout).unwrap();
        assert!(answers.matches('\n').count() >= 2, "{answers:?}");
    }
    // No memory is taken for what a window allows and the conversation does not have.
    let endless = [&args[..], &["--max-window-size", "4611686018427387904"]].concat();
    assert!(with_input(&endless, "one\n").status.success());
    let output = with_input(&args, "/help\n");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("/help is not known; there are /reset and /exit"),
        "{told}"
    );
}

#[test]
fn generation_config_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tiny");
    for name in ["config.json", "model.safetensors", "qwen.tiktoken"] {
        std::fs::copy(tiny.join(name), dir.path().join(name)).unwrap();
    }
    let file = dir.path().join("generation_config.json");
    let model = dir.path().to_string_lossy();
    let text = |args: &[&str]| {
        let all = [&["generate", "--model", &model], args, &[PROMPT]].concat();
        succeed(Path::new("."), &all)
    };
    let greedy = text(&["--max-new-tokens", "20"]);
    let drawn = text(&[
        "--max-new-tokens",
        "20",
        "--temperature",
        "1",
        "--top-p",
        "0.9",
    ]);
    std::fs::write(
        &file,
        r#"{"do_sample": true, "top_p": 0.9, "max_new_tokens": 20, "eos_token_id": [1840]}"#,
    )
    .unwrap();
    assert_eq!(text(&[]), drawn);
    assert_eq!(text(&["--greedy"]), greedy);
    for (text, words) in [
        (r#"{"chat_format": "vicuna"}"#, "chat_format"),
        (r#"{"temperature": -1}"#, "temperature is -1"),
        (r#"{"top_p": 1.5}"#, "top_p is 1.5"),
        (r#"{"repetition_penalty": 0}"#, "repetition_penalty is 0"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run_in(Path::new("."), &["generate", "--model", &model, PROMPT]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        let words = format!("generation_config.json: {words}");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn profile_prints_both_tables() {
    let args = [
        "profile",
        "--shape",
        "micro",
        "--quant",
        "f32",
        "--tokens",
        "8,16",
        "--prefill",
        "12",
        "--kv",
        "int8",
    ];
    let text = succeed(Path::new("."), &args);
    for row in ["| 8 |", "| 16 |", "| 12 |", "cache int8"] {
        assert!(text.contains(row), "{row} in {text}");
    }
}

#[test]
fn mistakes_are_named() {
    for (args, words) in [
        (
            &["generate", "--set", "rope.kind=foo", "hi"][..],
            "dynamic_ntk_hf",
        ),
        (&["generate", "--set", "foo=1", "hi"], "`sinks`"),
        (
            &["generate", "--set", "window=[1,2]", "hi"],
            "the model has 6",
        ),
        (
            &["generate", "--kv", "int3", "hi"],
            "f32, bf16, f16 and int8",
        ),
        (&["generate", "--top-p", "2", "hi"], "up to 1"),
        (&["generate", "--stop=", "hi"], "--stop is empty"),
        (&["generate", ""], "the prompt is empty"),
        (
            &["generate", "--max-new-tokens", "4000000000", "hi"],
            "--max-new-tokens",
        ),
        (&["chat", "--format", "alpaca"], "chatml and raw"),
        (&["profile", "--tokens", "1"], "--tokens"),
    ] {
        let args = [args, &["--model", "builtin:tiny"]].concat();
        let output = run_in(Path::new("."), &args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
}
