//! A training config over the built-in articles.

use std::path::Path;

use super::tiny_folder;

/// A training of seconds, with every kind of source, in `dir/train.toml`.
pub fn write_training(dir: &Path) {
    let vocabulary = tiny_folder().join("qwen.tiktoken");
    std::fs::copy(vocabulary, dir.join("tiny.tiktoken")).unwrap();
    let config = r#"
seed = 3
tokenizer = "tiny.tiktoken"

[model]
layers = 2
heads = 2
head_dim = 16
ffn = 48
trained = 96

[initial]
matrices = 0.06
embedding = 0.2
offsets = [[1, 2]]

[schedule]
steps = 40
batch_tokens = 192
accumulate = 2
learning_rate = 3e-3
final_learning_rate = 3e-4
warmup = 5
log_every = 2
save_every = 4

[[source]]
name = "articles"
kind = "text"
path = "builtin:articles"
documents = 2

[[source]]
name = "recall"
kind = "recall"
tasks = ["pass-key", "fact", "multi-key", "multi-value"]
haystack = ["articles"]

[[source]]
name = "pairs"
kind = "pairs"

[[source]]
name = "echo"
kind = "echo"
from = ["articles"]

[[phase]]
until = 0.4
lengths = [60, 64]
mixture = { pairs = 0.4, recall = 0.3, echo = 0.2, articles = 0.1 }

[[phase]]
until = 1.0
lengths = [96]
mixture = { recall = 0.4, echo = 0.1, articles = 0.5 }
attention = [{ share = 3.0, name = "plain" }, { share = 1.0, name = "logn", logn = true }]

[probe]
every = 10
tasks = ["fact"]
trials = 3
text = { articles = "builtin:articles" }
"#;
    std::fs::write(dir.join("train.toml"), config).unwrap();
}

/// A folder with [`write_training`].
pub fn training_workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_training(dir.path());
    dir
}
