//! `[[published]]` tables of a run config.

use crate::RUN;
use crate::shared::{fail, workspace};

#[test]
fn a_bad_published_number_is_named() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let row = |rest: &str| format!("[[published]]\nname = \"a\"\nsource = \"b\"\n{rest}\n");
    let good = row("perplexity = { 64 = 4.23 }");
    for (published, words) in [
        (row(""), &["missing field `perplexity`"][..]),
        (row("perplexity = {}"), &["published.0", "\"a\"", "empty"]),
        (
            row("perplexity = { 64 = -3 }"),
            &["published.0", "perplexity.64 = -3", "above 0"],
        ),
        (row("perplexity = { 64 = 0.0 }"), &["perplexity.64 = 0"]),
        (row("perplexity = { 64 = inf }"), &["perplexity.64 = inf"]),
        (row("perplexity = { 64 = nan }"), &["perplexity.64 = NaN"]),
        (row("perplexity = { 64 = \"-\" }"), &["run.toml", "\"-\""]),
        (
            row("perplexity = { 1K = 4.23 }"),
            &["run.toml", "\"1K\" is not a context length"],
        ),
        (
            row("perplexity = { 1 = 4.23 }"),
            &["perplexity.1:", "2 tokens"],
        ),
        (
            row("perplexity = { 64 = 4.23 }\nmethod = \"yarn\""),
            &["published.0", "\"yarn\"", "\"plain\", \"ntk + logn\""],
        ),
        (
            good.replace("\"a\"", "\" \""),
            &["published.0.name = \" \""],
        ),
        (
            good.replace("\"b\"", "\"\""),
            &["published.0.source = \"\""],
        ),
        (
            good.replace("source", "from"),
            &["unknown field `from`", "source"],
        ),
        (
            good.clone() + &good,
            &["published.1.name", "\"a\" stands twice"],
        ),
    ] {
        std::fs::write(&path, format!("{config}\n{published}")).unwrap();
        fail(dir.path(), &RUN, words);
    }
    std::fs::write(&path, format!("{config}\n{good}")).unwrap();
    let half = ["run", "run.toml", "--set", "perplexity.protocol=half"];
    fail(
        dir.path(),
        &half,
        &["[[published]]", "only half", "add packed"],
    );
    let without = config.replace("[perplexity]", "[needle]");
    let without = without.replace("max_tokens = 128", "") + &good;
    std::fs::write(&path, without).unwrap();
    fail(dir.path(), &RUN, &["[[published]]", "no [perplexity]"]);
    assert!(!dir.path().join("runs").exists());
}
