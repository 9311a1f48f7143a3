//! `generate`, `chat` and `profile`.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::shared::{fail, longspan, succeed, tiny_folder};

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
fn a_prompt_is_continued() {
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
    // The text ends before a stop word.
    let word = text.split(' ').nth(2).unwrap();
    let stopped = generate(&["--max-new-tokens", "30", "--stop", word, PROMPT]);
    assert_eq!(
        stopped.trim_end_matches('\n'),
        text.split_once(word).unwrap().0
    );
}

#[test]
fn samples_follow_the_seed() {
    let sample = |seed| {
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
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

/// The answers of a conversation with short windows.
fn chat(input: &str) -> String {
    let args = "chat --model builtin:tiny --max-new-tokens 5 --set window=64";
    let output = with_input(&args.split(' ').collect::<Vec<_>>(), input);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_conversation_remembers_until_it_is_reset() {
    let (one, two) = (chat("one\n"), chat("two\n"));
    assert!(one.ends_with('\n') && one.trim().len() > 1, "{one:?}");
    assert_ne!(one, two);
    // Nothing after /exit is answered, and /reset forgets what was said.
    let reset = chat("one\n/reset\ntwo\n/exit\nthree\n");
    assert_eq!(reset, format!("{one}{two}"));
    // Empty lines are not answered; the second answer knows the first.
    let both = chat("one\n\ntwo\n");
    let second = both.strip_prefix(&one).unwrap();
    assert!(second.ends_with('\n'), "{second:?}");
    assert_ne!(second, two);
}

#[test]
fn a_large_window_takes_no_memory_of_its_own() {
    let args = "chat --model builtin:tiny --max-new-tokens 5 --max-window-size 4611686018427387904";
    let output = with_input(&args.split(' ').collect::<Vec<_>>(), "one\n");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

#[test]
fn an_unknown_chat_command_is_named() {
    let output = with_input(&["chat", "--model", "builtin:tiny"], "/help\n");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("/help is not known; there are /reset and /exit"),
        "{error}"
    );
}

#[test]
fn generation_config_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "qwen.tiktoken"] {
        std::fs::copy(tiny_folder().join(name), dir.path().join(name)).unwrap();
    }
    let file = dir.path().join("generation_config.json");
    let model = dir.path().to_string_lossy();
    let text = |args: &[&str]| {
        let all = [&["generate", "--model", &model], args, &[PROMPT]].concat();
        succeed(Path::new("."), &all)
    };
    let greedy = text(&["--max-new-tokens", "20"]);
    let sampled = text(&[
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
    assert_eq!(text(&[]), sampled);
    assert_eq!(text(&["--greedy"]), greedy);
    for (text, words) in [
        (r#"{"chat_format": "vicuna"}"#, "chat_format"),
        (r#"{"temperature": -1}"#, "temperature is -1"),
        (r#"{"top_p": 1.5}"#, "top_p is 1.5"),
        (r#"{"repetition_penalty": 0}"#, "repetition_penalty is 0"),
    ] {
        std::fs::write(&file, text).unwrap();
        let words = format!("generation_config.json: {words}");
        let args = ["generate", "--model", &model, PROMPT];
        fail(Path::new("."), &args, &[&words]);
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
        assert_eq!(text.matches(row).count(), 1, "{row} in {text}");
    }
}

#[test]
fn bad_arguments_are_named() {
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
        (&["generate", "--stop=", "hi"], "a stop word is empty"),
        (&["generate", ""], "the prompt is empty"),
        (
            &["generate", "--max-new-tokens", "4000000000", "hi"],
            "--max-new-tokens",
        ),
        (&["chat", "--format", "alpaca"], "chatml and raw"),
        (&["profile", "--tokens", "1"], "--tokens"),
    ] {
        let args = [args, &["--model", "builtin:tiny"]].concat();
        fail(Path::new("."), &args, &[words]);
    }
}
