//! The tokenizer: Qwen's own ids, wrong vocabularies, and extreme texts.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longspan_data::{Corpus, Tokenizer};
use unicode_normalization::UnicodeNormalization;

/// A shared asset, which is not part of the repository; without it a test is skipped.
fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    // The test runner captures `println` in tests that pass, but not direct writes.
    let line = format!("skipped: {name} is not in ../shared (1 check)\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

fn qwen() -> Option<Tokenizer> {
    Some(Tokenizer::from_file(&shared("qwen/qwen.tiktoken")?).unwrap())
}

#[test]
fn ids_are_qwens() {
    let Some(tokenizer) = qwen() else { return };
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = root.join("tests/golden/tokenizer.json");
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect()
    };
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let nfc: String = text.nfc().collect();
        let (special, plain) = (ids(&case["ids"]), ids(&case["ids_no_special"]));
        assert_eq!(tokenizer.encode_with_special(text), special, "{text:?}");
        assert_eq!(tokenizer.encode(text), plain, "{text:?}");
        assert_eq!(tokenizer.decode(&special).unwrap(), nfc);
        assert_eq!(tokenizer.decode(&plain).unwrap(), nfc);
        let lengths = tokenizer.byte_lengths(&plain).unwrap();
        assert_eq!(lengths.iter().sum::<usize>(), nfc.len());
    }
}

#[test]
fn qwens_vocabulary_has_its_size() {
    let Some(tokenizer) = qwen() else { return };
    assert_eq!(tokenizer.vocab_size(), 151_851);
    assert_eq!(tokenizer.encode_with_special("<|extra_204|>"), [151_850]);
    let text = tokenizer.encode_with_special("<|extra_205|>");
    assert!(text.iter().all(|&id| id < 151_643), "{text:?}");
    assert_eq!(
        tokenizer.decode(&[151_643, 151_646]).unwrap(),
        "<|endoftext|><|extra_0|>"
    );
    let message = tokenizer.decode(&[0, 151_851]).unwrap_err().to_string();
    assert!(
        message.contains("151851 is outside the vocabulary of 151851 tokens"),
        "{message}"
    );
}

#[test]
fn real_documents_round_trip() {
    let (Some(tokenizer), Some(path)) = (qwen(), shared("arxiv/eval.jsonl")) else {
        return;
    };
    let corpus = Corpus::open(path.to_str().unwrap(), "text").unwrap();
    let (mut bytes, mut tokens) = (0, 0);
    for document in corpus.documents() {
        let text = document.unwrap().text;
        let ids = tokenizer.encode(&text);
        (bytes, tokens) = (bytes + text.len(), tokens + ids.len());
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            text.nfc().collect::<String>()
        );
    }
    assert_eq!((bytes, tokens), (3_289_440, 966_101));
}

#[test]
fn huge_runs_are_encoded() {
    const N: usize = 1_000_000;
    let mut tokenizers = vec![Tokenizer::bytes()];
    tokenizers.extend(qwen());
    let texts = [
        " ".repeat(N),
        format!("x{}y", " ".repeat(N)),
        format!("x{}\ny", " ".repeat(N)),
        "\u{3000}\t".repeat(N / 2) + "end",
        "\n".repeat(N),
        " \n".repeat(N / 2) + "x",
        "a".repeat(N),
        "-".repeat(N),
        "1".repeat(N),
        "<|".repeat(N / 2),
    ];
    for tokenizer in &tokenizers {
        for text in &texts {
            let ids = tokenizer.encode(text);
            assert_eq!(&tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(tokenizer.encode_with_special(text), ids);
        }
    }
}

#[test]
fn bytes_are_the_built_in_tokens() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.vocab_size(), 256 + 208);
    assert_eq!(tokenizer.encode("aé"), [97, 0xc3, 0xa9]);
    assert_eq!(tokenizer.encode_with_special("a<|endoftext|>"), [97, 256]);
    assert_eq!(tokenizer.encode("<|im_end|>").len(), 10);
    assert_eq!(tokenizer.decode(&[0xc3]).unwrap(), "\u{fffd}");
    assert_eq!(
        tokenizer.byte_lengths(&[97, 0xc3, 256]).unwrap(),
        [1, 1, 13]
    );
    assert!(tokenizer.byte_lengths(&[464]).is_err());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes.tiktoken");
    fs::write(&path, vocabulary()).unwrap();
    assert_eq!(
        Tokenizer::from_file(&path).unwrap().digest(),
        tokenizer.digest()
    );
}

#[test]
fn text_is_composed_before_special_tokens_are_sought() {
    // The combining solidus turns the final `>` into U+226F, as it does in Qwen's own code.
    let tokenizer = Tokenizer::bytes();
    let ids = tokenizer.encode_with_special("<|im_end|>\u{338}");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "<|im_end|\u{226f}");
    assert!(ids.iter().all(|&id| id < 256));
}

/// A vocabulary of all bytes, one per line.
fn vocabulary() -> String {
    (0..=255u8)
        .map(|byte| format!("{} {byte}\n", STANDARD.encode([byte])))
        .collect()
}

fn error_of(vocabulary: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tiktoken");
    fs::write(&path, vocabulary).unwrap();
    Tokenizer::from_file(&path)
        .err()
        .expect("a wrong vocabulary")
        .to_string()
}

#[track_caller]
fn check_error(vocabulary: &str, parts: &[&str]) {
    let message = error_of(vocabulary);
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn wrong_vocabularies_are_refused() {
    let good = vocabulary();
    check_error("", &["x.tiktoken: the vocabulary is empty"]);
    check_error("\n\n", &["x.tiktoken: the vocabulary is empty"]);
    check_error(
        &good.replacen("AQ== 1\n", "A!== 1\n", 1),
        &["x.tiktoken:2: \"A!==\" is not base64"],
    );
    check_error(
        &good.replacen("AQ== 1\n", "AQ==\n", 1),
        &["x.tiktoken:2: the rank is missing"],
    );
    check_error(
        &good.replacen("AQ== 1\n", "AQ== -1\n", 1),
        &["x.tiktoken:2: \"-1\" is not a rank"],
    );
    check_error(
        &good.replacen("AQ== 1\n", "AQ== 1 2\n", 1),
        &["x.tiktoken:2: \"2\" follows the rank"],
    );
    check_error(
        &format!("{good}YWI= 7\n"),
        &["x.tiktoken:257: rank 7 of line 8 again"],
    );
    check_error(
        &format!("{good}AQ== 256\n"),
        &["x.tiktoken:257: the token of line 2 again"],
    );
    check_error(
        &format!("{good}YWI= 258\n"),
        &["rank 256 is missing", "257 tokens", "0 to 256"],
    );
    check_error(
        &good.replacen("Qg== 66\n", "YWI= 66\n", 1),
        &["no token for the single byte 0x42"],
    );
    check_error(
        "<!DOCTYPE html>",
        &["x.tiktoken:1: \"<!DOCTYPE\" is not base64"],
    );
}

#[test]
fn a_missing_vocabulary_is_named() {
    let path = PathBuf::from("no/such.tiktoken");
    let message = Tokenizer::from_file(&path).err().unwrap().to_string();
    assert!(
        message.contains("cannot read no/such.tiktoken"),
        "{message}"
    );
}
