//! Text, vocabularies and token ids.

use crate::RUN;
use crate::shared::{fail, workspace};

#[test]
fn bad_text_is_named() {
    let dir = workspace("lengths = [64]");
    let run = |data: &str, words: &[&str]| {
        let set = format!("data.path={data}");
        fail(dir.path(), &["run", "run.toml", "--set", &set], words);
    };
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    run("none.txt", &["none.txt"]);
    run("*.parquet", &["*.parquet"]);
    write("a.pdf", b"%PDF");
    run("a.pdf", &["a.pdf", ".jsonl"]);
    write("empty.txt", b"");
    run("empty.txt", &["empty.txt", "no text"]);
    write("short.txt", b"too short");
    run("short.txt", &["short.txt", "9 tokens", "64"]);
    write("latin.txt", b"caf\xe9 and so on");
    run("latin.txt", &["latin.txt", "UTF-8", "3"]);
    write("broken.jsonl", b"{\"text\": \"a\"}\n{\"text\": ");
    run("broken.jsonl", &["broken.jsonl:2"]);
    write("other.jsonl", b"{\"content\": \"a\"}\n");
    run("other.jsonl", &["other.jsonl:1", "text", "content"]);
    write("cut.txt.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    run("cut.txt.gz", &["cut.txt.gz"]);
    write("cut.txt.zst", &[0x28, 0xb5, 0x2f, 0xfd, 4]);
    run("cut.txt.zst", &["cut.txt.zst"]);
    write("cut.parquet", b"PAR1PAR1");
    run("cut.parquet", &["cut.parquet"]);
}

#[test]
fn a_bad_vocabulary_is_named() {
    let dir = workspace("lengths = [64]");
    let vocabulary = dir.path().join("model/bytes.tiktoken");
    let good = std::fs::read_to_string(&vocabulary).unwrap();
    std::fs::write(&vocabulary, good.replacen("AA== 0", "A?== 0", 1)).unwrap();
    fail(dir.path(), &RUN, &["bytes.tiktoken:1", "base64"]);
    std::fs::write(&vocabulary, good.replacen("AQ== 1", "AQ== 0", 1)).unwrap();
    fail(dir.path(), &RUN, &["bytes.tiktoken:2"]);
    std::fs::remove_file(&vocabulary).unwrap();
    fail(dir.path(), &RUN, &["model", ".tiktoken", "--tokenizer"]);
}

#[test]
fn bad_token_ids_are_named() {
    let dir = workspace("lengths = [64]");
    std::fs::write(dir.path().join("m.toml"), "[[method]]\nname = \"plain\"\n").unwrap();
    let score = |ids: &str, words: &[&str]| {
        std::fs::write(dir.path().join("ids.jsonl"), ids).unwrap();
        let args = "score --model model --methods m.toml --tokens ids.jsonl --out nll.jsonl";
        fail(dir.path(), &args.split(' ').collect::<Vec<_>>(), words);
        assert!(!dir.path().join("nll.jsonl").exists());
    };
    score(
        "[1, 2]\n[3, 464]\n",
        &["464", "position 1", "vocabulary of 464"],
    );
    score("[1, -2]\n", &["ids.jsonl:1"]);
    score("[1, 2\n", &["ids.jsonl:1"]);
    score("", &["no input"]);
    let args = "score --model model --methods m.toml --method other --tokens ids.jsonl --out n";
    fail(
        dir.path(),
        &args.split(' ').collect::<Vec<_>>(),
        &["other", "\"plain\""],
    );
    let args = "score --model model --methods m.toml --out n";
    fail(
        dir.path(),
        &args.split(' ').collect::<Vec<_>>(),
        &["--tokens", "--text"],
    );
}

#[cfg(feature = "train-tokenizer")]
#[test]
fn a_vocabulary_that_cannot_be_learned_is_named() {
    let dir = tempfile::tempdir().unwrap();
    crate::shared::write_training(dir.path());
    crate::shared::write_text(dir.path());
    let train = |args: &str, words: &[&str]| {
        let args = format!("train-tokenizer {args}");
        fail(dir.path(), &args.split(' ').collect::<Vec<_>>(), words);
    };
    train(
        "tiny.tiktoken --size 300 --text text.jsonl",
        &["tiny.tiktoken: exists"],
    );
    train("new.tiktoken --size 255 --text text.jsonl", &["255", "256"]);
    train(
        "new.tiktoken --size 99999 --text text.jsonl",
        &["tokens of 99999", "--size"],
    );
    train(
        "no/new.tiktoken --size 300 --text text.jsonl",
        &["no/new.tiktoken", "folder"],
    );
    train("new.tiktoken --size 300 --text none.jsonl", &["none.jsonl"]);
    train("new.tiktoken --size 300", &["--text"]);
    train(
        "new.tiktoken --size 300 --bytes 0 --text text.jsonl",
        &["text.jsonl: no text"],
    );
    assert!(!dir.path().join("new.tiktoken").exists());
}
