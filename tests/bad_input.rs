//! Bad input: exit code 2 and a message that names the file, the key or tensor, and both values.

mod shared;

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use shared::{fail, succeed, workspace};

const RUN: [&str; 2] = ["run", "run.toml"];

/// Name, type, shape and bytes of a tensor.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn read_weights(dir: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(dir.join("model/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stored = tensors.iter().map(|(name, view)| {
        let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), view.dtype(), shape, data)
    });
    let mut weights: Vec<Stored> = stored.collect();
    weights.sort_by(|a, b| a.0.cmp(&b.0)); // the reader's order is that of a hash map
    weights
}

fn write_weights(path: &Path, weights: &[Stored]) {
    let views = weights.iter().map(|(name, dtype, shape, data)| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes the weights of a good checkpoint and expects `words` in the error.
#[track_caller]
fn broken_weights(change: impl FnOnce(&mut Vec<Stored>), words: &[&str]) {
    let dir = workspace("lengths = [64]");
    let mut weights = read_weights(dir.path());
    change(&mut weights);
    write_weights(&dir.path().join("model/model.safetensors"), &weights);
    fail(dir.path(), &RUN, words);
}

fn find<'a>(weights: &'a mut [Stored], name: &str) -> &'a mut Stored {
    weights.iter_mut().find(|w| w.0 == name).unwrap()
}

#[test]
fn a_broken_tensor_is_named() {
    broken_weights(
        |w| w.retain(|w| w.0 != "transformer.h.1.mlp.w2.weight"),
        &[
            "model.safetensors",
            "transformer.h.1.mlp.w2.weight is missing",
        ],
    );
    broken_weights(
        |w| w.push(("extra.weight".into(), Dtype::F32, vec![1], vec![0; 4])),
        &["model.safetensors", "extra.weight is not part of the model"],
    );
    broken_weights(
        |w| find(w, "lm_head.weight").2 = vec![64, 464],
        &["lm_head.weight", "[64, 464]", "[464, 64]"],
    );
    broken_weights(
        |w| {
            let bias = find(w, "transformer.h.0.attn.c_attn.bias");
            (bias.1, bias.3) = (Dtype::I32, bias.3.clone());
        },
        &["transformer.h.0.attn.c_attn.bias is I32"],
    );
    for (value, word) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        broken_weights(
            |w| {
                let norm = find(w, "transformer.ln_f.weight");
                norm.3[4 * 7..4 * 8].copy_from_slice(&value.to_le_bytes());
            },
            &[
                "model.safetensors",
                "transformer.ln_f.weight",
                word,
                "index 7",
            ],
        );
    }
    let dir = workspace("lengths = [64]");
    let mut weights = read_weights(dir.path());
    find(&mut weights, "lm_head.weight").3[..4].copy_from_slice(&70000f32.to_le_bytes());
    write_weights(&dir.path().join("model/model.safetensors"), &weights);
    let args = ["run", "run.toml", "--set", "model.dtype=f16"];
    fail(
        dir.path(),
        &args,
        &["lm_head.weight", "70000", "f16", "wider"],
    );
}

#[test]
fn a_broken_file_is_named() {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1000]).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["model.safetensors", "not a valid safetensors"],
    );
    let mut header = whole.clone();
    header[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    std::fs::write(&path, header).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["model.safetensors", "not a valid safetensors"],
    );
    std::fs::write(&path, &whole[..5]).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["model.safetensors", "not a valid safetensors"],
    );
    std::fs::remove_file(&path).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["model: no model.safetensors", "Hugging Face"],
    );
    fail(
        dir.path(),
        &["run", "run.toml", "--set", "model.path=none"],
        &["none", "no such folder"],
    );
}

#[test]
fn a_missing_shard_is_named_and_whole_shards_load() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    succeed(dir.path(), &["run", "run.toml", "--out", "single"]);
    let model = dir.path().join("model");
    let weights = read_weights(dir.path());
    let (first, second) = weights.split_at(7);
    let mut map = serde_json::Map::new();
    for (part, file) in [(first, "a.safetensors"), (second, "b.safetensors")] {
        write_weights(&model.join(file), part);
        map.extend(part.iter().map(|w| (w.0.clone(), Value::from(file))));
    }
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(
        model.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    succeed(dir.path(), &["run", "run.toml", "--out", "sharded"]);
    let of = |run: &str| shared::records(&dir.path().join(run));
    // The same weights in other shards are the same checkpoint: even the keys agree.
    assert_eq!(of("single")[0]["key"], of("sharded")[0]["key"]);
    assert_eq!(of("single")[0]["nll"], of("sharded")[0]["nll"]);

    std::fs::remove_file(model.join("b.safetensors")).unwrap();
    let tensor = second[0].0.as_str();
    fail(
        dir.path(),
        &RUN,
        &["b.safetensors: missing", "index.json", tensor],
    );
    write_weights(&model.join("b.safetensors"), &weights);
    fail(
        dir.path(),
        &RUN,
        &["a.safetensors", "b.safetensors", "is in"],
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::write(model.join("b.safetensors"), pointer).unwrap();
    fail(dir.path(), &RUN, &["b.safetensors", "git lfs pull"]);

    write_weights(&model.join("model.safetensors"), &weights);
    fail(
        dir.path(),
        &RUN,
        &["index.json", "model.safetensors", "two checkpoints"],
    );

    // A folder that holds a checkpoint is not written over.
    let args = ["random-checkpoint", "model", "--shape", "micro"];
    fail(dir.path(), &args, &["model", "another folder"]);
}

#[test]
fn a_bad_field_of_config_json_is_named() {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/config.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let with = |key: &str, value: Option<Value>| {
        let mut config = good.clone();
        match value {
            Some(value) => config[key] = value,
            None => drop(config.as_object_mut().unwrap().remove(key)),
        }
        std::fs::write(&path, config.to_string()).unwrap();
    };
    for key in [
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "kv_channels",
        "intermediate_size",
        "seq_length",
        "rotary_emb_base",
        "layer_norm_epsilon",
    ] {
        with(key, None);
        fail(dir.path(), &RUN, &["config.json", key, "missing"]);
    }
    for (key, value) in [
        ("model_type", "\"llama\""),
        ("rotary_pct", "0.25"),
        ("no_bias", "false"),
        ("tie_word_embeddings", "true"),
        ("quantization_config", "{\"bits\":4}"),
        ("num_attention_heads", "0"),
        ("kv_channels", "\"16\""),
        ("hidden_size", "96"),
        ("intermediate_size", "351"),
        ("rotary_emb_base", "-1"),
        ("seq_length", "1"),
    ] {
        with(key, Some(serde_json::from_str(value).unwrap()));
        fail(dir.path(), &RUN, &["config.json", key, value]);
    }
    std::fs::write(&path, "{").unwrap();
    fail(dir.path(), &RUN, &["config.json", "line 1"]);
}

#[test]
fn a_bad_key_of_the_config_is_named() {
    let dir = workspace("lengths = [64]");
    for (set, words) in [
        ("modle.path=x", &["modle", "unknown field"][..]),
        ("model.pth=x", &["pth", "unknown field"]),
        ("data.filed=x", &["unknown field `filed`"]),
        ("perplexity.length=5", &["length", "lengths"]),
        ("perplexity.protocol=pakced", &["packed, truncate"]),
        ("model.dtype=int8", &["int8", "bf16"]),
        (
            "model.activations=bf16",
            &[
                "activations in bf16",
                "cpu",
                "model.activations",
                "--device",
            ],
        ),
        ("model.trained=1", &["model.trained = 1", "give 2 to"]),
        ("model.trained=2K", &["trained", "2K"]),
        ("method.0.ropes.kind=x", &["unknown field `ropes`"]),
        (
            "method.0.rope.kind=yarrn",
            &["method \"plain\"", "yarrn", "yarn"],
        ),
        (
            "method.1.rope.alpha=2",
            &["method \"ntk + logn\"", "alpha", "freeze"],
        ),
        (
            "method.1.rope.kind=yarn",
            &["method \"ntk + logn\"", "yarn", "factor"],
        ),
        (
            "method.2.window=[40, 64, 64]",
            &["windows + sinks", "3 layers", "model has 2"],
        ),
        ("method.2.window=0", &["window", "0 is not a size"]),
        (
            "method.2.window=\"full\"",
            &["windows + sinks", "sinks = 4"],
        ),
        ("method.1.logn=maybe", &["is not one of true, false"]),
        ("method.1.name=plain", &["two methods", "plain"]),
        ("method=[]", &["[[method]]"]),
        ("perplexity.lengths=[1]", &["lengths", "1", "2 or more"]),
        ("perplexity.lengths=[]", &["lengths", "empty"]),
        ("perplexity.lengths=[64, 64]", &["64 stands twice"]),
        (
            "perplexity.lengths=[2100]",
            &["text.jsonl", "2100", "2 documents"],
        ),
        ("perplexity.max_tokens=10", &["64", "max_tokens = 10"]),
        ("perplexity.stride=5", &["stride", "sliding"]),
        ("perplexity.nested=1", &["a boolean"]),
        ("perplexity.prefill=8", &["prefill = 8", "freeze"]),
        ("method.2.name=\"a\\nb\"", &["line breaks"]),
        (
            "method.0.rope={ kind = \"linear\", factor = nan }",
            &["plain", "factor", "finite"],
        ),
        (
            "method.2={ name = \"a\", window = { layers = \"full\", alpha = \"per_layer\" } }",
            &["per_layer"],
        ),
        ("method.7.sinks=1", &["7", "list of 3"]),
        ("nonsense", &["key=value"]),
    ] {
        // The length within one document is checked by a protocol that stays inside documents.
        let protocol = match set {
            "perplexity.lengths=[2100]" => "perplexity.protocol=truncate",
            _ => "perplexity.max_tokens=4096",
        };
        fail(
            dir.path(),
            &["run", "run.toml", "--set", protocol, "--set", set],
            words,
        );
    }
    fail(dir.path(), &["run", "none.toml"], &["none.toml"]);
    std::fs::write(dir.path().join("bad.toml"), "[model\n").unwrap();
    fail(dir.path(), &["run", "bad.toml"], &["bad.toml", "line 1"]);
}

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
            &["run.toml", "\"1K\" is no context length"],
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

#[test]
fn a_bad_needle_is_named() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let task = |body: &str| format!("lengths = [200]\n[[needle.task]]\nname = \"own\"\n{body}");
    let own = |body: &str| {
        let texts = "needle = \" {key} {value}\"\nquestion = \"{key}?\"\nanswer = \"{value}\"\n";
        task(&(texts.to_owned() + body))
    };
    for (needle, words) in [
        ("", &["lengths"][..]),
        ("lengths = []", &["needle.lengths is empty"]),
        (
            "lengths = [300, 200]",
            &["needle.lengths", "200 after 300", "ascending"],
        ),
        ("lengths = [200, 200]", &["needle.lengths", "200 after 200"]),
        ("lengths = [1, 200]", &["needle.lengths: 1", "2 tokens"]),
        (
            "lengths = [64]",
            &[
                "needle.lengths: 64",
                "pass-key",
                "of 64 tokens",
                "raise the length",
            ],
        ),
        (
            "lengths = [2300]",
            &[
                "text.jsonl",
                "2200 tokens",
                "needle.lengths",
                "2300",
                "more text",
            ],
        ),
        ("lengths = [200]\ndepths = 0", &["needle.depths = 0"]),
        (
            "lengths = [200]\ndepths = 4611686018427387904",
            &["needle.depths = 4611686018427387904", "1 to 1000"],
        ),
        ("lengths = [200]\ndepths = []", &["needle.depths", "empty"]),
        ("lengths = [200]\ndepths = -3", &["depths are a number"]),
        (
            "lengths = [200]\ndepths = [0, 50]",
            &["needle.depths: 50", "25%"],
        ),
        (
            "lengths = [200]\ndepths = [-0.1]",
            &["needle.depths: -0.1", "0 to 1"],
        ),
        ("lengths = [200]\ndepths = [nan]", &["needle.depths: NaN"]),
        (
            "lengths = [200]\ndepths = [\"120%\"]",
            &["needle.depths: \"120%\""],
        ),
        (
            "lengths = [200]\ndepths = [\"half\"]",
            &["needle.depths: \"half\""],
        ),
        (
            "lengths = [200]\ndepths = [0.5, 0.2]",
            &["needle.depths: 0.2 after 0.5"],
        ),
        (
            "lengths = [200]\nkeys = 4",
            &["needle.keys = 4", "give 5 or more"],
        ),
        (
            "lengths = [200]\nthreshold = 85",
            &["needle.threshold = 85", "up to 1"],
        ),
        (
            "lengths = [200]\nscorer = \"judge\"",
            &["teacher-forced, generate"],
        ),
        ("lengths = [200]\nscorer = []", &["needle.scorer", "empty"]),
        (
            "lengths = [200]\ntasks = [\"passkey\"]",
            &["\"passkey\" is not known", "pass-key, fact"],
        ),
        (
            "lengths = [200]\ntasks = [\"fact\", \"fact\"]",
            &["\"fact\" stands twice"],
        ),
        ("lengths = [200]\nneedles = 3", &["unknown field `needles`"]),
        (
            &task("question = \"\"\nanswer = \"{value}\""),
            &["missing field `needle`"],
        ),
        (
            &task("needle = \"x\"\nquestion = \"\"\nanswer = \"{value}\""),
            &["own", "needle", "lacks {value}"],
        ),
        (
            &own("value = \"uuid\""),
            &["\"uuid\" is nothing to draw from", "digits:5"],
        ),
        (&own("value = 5"), &["digits:5"]),
        (
            &own("needles = 2\nvalue = [\"a\"]"),
            &["own", "value has 1 different", "need 2"],
        ),
        (&own("asked = 2"), &["own", "asked = 2 of needles = 1"]),
        (
            &own("needles = 4611686018427387904"),
            &["own", "needles = 4611686018427387904", "at most"],
        ),
        (
            &own("prompt = \"{question}\""),
            &["own", "{haystack} exactly once"],
        ),
        (
            &own("").replace("\"own\"", "\"fact\""),
            &["needle.task.0", "\"fact\"", "another"],
        ),
        (
            &own("").replace("[200]", "[200]\ntasks = [\"fact\"]"),
            &["\"own\" has no effect"],
        ),
    ] {
        std::fs::write(&path, format!("{config}\n[needle]\n{needle}\n")).unwrap();
        fail(dir.path(), &RUN, words);
        assert!(!dir.path().join("runs").exists(), "{needle}");
    }
    // Neither of the two.
    let start = config.find("[perplexity]").unwrap();
    let end = config.find("[[method]]").unwrap();
    std::fs::write(&path, config[..start].to_owned() + &config[end..]).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["run.toml", "neither [perplexity] nor [needle]"],
    );
}

#[test]
fn bad_text_is_named() {
    let dir = workspace("lengths = [64]");
    let run = |data: &str, words: &[&str]| {
        fail(
            dir.path(),
            &["run", "run.toml", "--set", &format!("data.path={data}")],
            words,
        );
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
fn a_bad_vocabulary_and_bad_ids_are_named() {
    let dir = workspace("lengths = [64]");
    let vocabulary = dir.path().join("model/bytes.tiktoken");
    let good = std::fs::read_to_string(&vocabulary).unwrap();
    std::fs::write(&vocabulary, good.replacen("AA== 0", "A?== 0", 1)).unwrap();
    fail(dir.path(), &RUN, &["bytes.tiktoken:1", "base64"]);
    std::fs::write(&vocabulary, good.replacen("AQ== 1", "AQ== 0", 1)).unwrap();
    fail(dir.path(), &RUN, &["bytes.tiktoken:2"]);
    std::fs::remove_file(&vocabulary).unwrap();
    fail(dir.path(), &RUN, &["model", ".tiktoken"]);

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

#[test]
fn a_run_folder_that_cannot_be_used_is_named() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    std::fs::write(dir.path().join("file"), "").unwrap();
    fail(
        dir.path(),
        &["run", "run.toml", "--out", "file/run"],
        &["file/run"],
    );

    // The folder of a training.
    std::fs::create_dir(dir.path().join("trained")).unwrap();
    let config = dir.path().join("trained/config.toml");
    std::fs::write(&config, "seed = 1\n").unwrap();
    let out = [&RUN[..], &["--out", "trained"]].concat();
    fail(dir.path(), &out, &["trained", "something else than a run"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "seed = 1\n");
    // A config that is run in its own folder keeps its comments.
    let written = std::fs::read_to_string(dir.path().join("run.toml")).unwrap() + "# why\n";
    let own = dir.path().join("config.toml");
    std::fs::write(&own, &written).unwrap();
    succeed(dir.path(), &["run", "config.toml", "--out", "."]);
    assert_eq!(std::fs::read_to_string(&own).unwrap(), written);

    succeed(dir.path(), &RUN);
    for (set, words) in [
        (
            "perplexity.max_tokens=256",
            &["perplexity.max_tokens", "128", "256"][..],
        ),
        ("method.2.sinks=5", &["method.2.sinks", "4", "5"]),
        ("model.dtype=bf16", &["model.dtype", "bf16"]),
    ] {
        let args = ["run", "run.toml", "--set", set];
        fail(dir.path(), &args, &[&["another config"], words].concat());
    }
    // A damaged line that is not the last is not dropped: it may hold hours of work.
    let path = dir.path().join("runs/run/records.jsonl");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replacen("{\"key\"", "{\"kex\"", 1)).unwrap();
    fail(dir.path(), &RUN, &["records.jsonl:1"]);
    fail(dir.path(), &["report", "runs/run"], &["records.jsonl:1"]);
    fail(dir.path(), &["report", "model"], &["model/records.jsonl"]);

    // Two programs at once.
    std::fs::write(&path, good).unwrap();
    let held = std::fs::File::open(&path).unwrap();
    held.lock().unwrap();
    fail(dir.path(), &RUN, &["another longspan is writing"]);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let dir = workspace("lengths = [32]\nmax_tokens = 64");
    let run = |device| ["run", "run.toml", "--device", device];
    fail(dir.path(), &run("tpu"), &["tpu", "cpu, cuda, wgpu"]);
    fail(dir.path(), &run("cpu:1"), &["cpu:1", "there are 1"]);
    fail(dir.path(), &run("cpu:x"), &["\"x\""]);
    // This build has one GPU kind at most in tests.
    fail(dir.path(), &run("rocm"), &["--features rocm"]);
    if cfg!(feature = "wgpu") {
        fail(dir.path(), &run("wgpu:99"), &["--device wgpu"]);
    } else {
        fail(dir.path(), &run("wgpu"), &["--features wgpu"]);
    }
}
