//! Keys of a run config, apart from `[needle]` and `[[published]]`.

use crate::shared::{fail, workspace};
use crate::{RUN, refused};

#[test]
fn unknown_keys_are_named() {
    let dir = workspace("lengths = [64]");
    refused(
        dir.path(),
        &[
            ("modle.path=x", &["modle", "unknown field"]),
            ("model.pth=x", &["pth", "unknown field"]),
            ("data.filed=x", &["unknown field `filed`"]),
            ("perplexity.length=5", &["length", "lengths"]),
            ("method.0.ropes.kind=x", &["unknown field `ropes`"]),
            ("method.7.sinks=1", &["7", "list of 3"]),
            ("nonsense", &["key=value"]),
        ],
    );
    fail(dir.path(), &["run", "none.toml"], &["none.toml"]);
    std::fs::write(dir.path().join("bad.toml"), "[model\n").unwrap();
    fail(dir.path(), &["run", "bad.toml"], &["bad.toml", "line 1"]);
}

#[test]
fn bad_values_of_model_and_perplexity_are_named() {
    let dir = workspace("lengths = [64]");
    refused(
        dir.path(),
        &[
            ("model.dtype=int8", &["int8", "bf16"]),
            ("model.trained=1", &["model.trained = 1", "give 2 to"]),
            ("model.trained=2K", &["trained", "2K"]),
            ("perplexity.protocol=pakced", &["packed, truncate"]),
            ("perplexity.lengths=[1]", &["lengths", "1", "2 or more"]),
            ("perplexity.lengths=[]", &["lengths", "empty"]),
            ("perplexity.lengths=[64, 64]", &["64 stands twice"]),
            ("perplexity.max_tokens=10", &["64", "max_tokens = 10"]),
            ("perplexity.stride=5", &["stride", "sliding"]),
            ("perplexity.nested=1", &["a boolean"]),
            ("perplexity.prefill=8", &["prefill = 8", "freeze"]),
        ],
    );
    // Only protocols that stay inside a document need a document of the longest length.
    let protocol = ["--set", "perplexity.protocol=truncate"];
    let length = ["--set", "perplexity.lengths=[2100]"];
    fail(
        dir.path(),
        &[&RUN[..], &protocol, &length].concat(),
        &["text.jsonl", "2100", "2 documents"],
    );
}

#[test]
fn a_bad_method_is_named() {
    let dir = workspace("lengths = [64]\nmax_tokens = 4096");
    refused(
        dir.path(),
        &[
            (
                "method.0.rope.kind=yarrn",
                &["method \"plain\"", "yarrn", "yarn"],
            ),
            (
                "method.0.rope={ kind = \"linear\", factor = nan }",
                &["plain", "factor", "finite"],
            ),
            (
                "method.1.rope.alpha=2",
                &["method \"ntk + logn\"", "alpha", "freeze"],
            ),
            (
                "method.1.rope.kind=yarn",
                &["method \"ntk + logn\"", "yarn", "factor"],
            ),
            ("method.1.logn=maybe", &["is not one of true, false"]),
            (
                "method.2.window=[40, 64, 64]",
                &["windows + sinks", "3 layers", "model has 2"],
            ),
            ("method.2.window=0", &["window", "0 is not a size"]),
            (
                "method.2.window=\"full\"",
                &["windows + sinks", "sinks = 4"],
            ),
            (
                "method.2={ name = \"a\", window = { layers = \"full\", alpha = \"per_layer\" } }",
                &["per_layer"],
            ),
            ("method.1.name=plain", &["two methods", "plain"]),
            ("method.2.name=\"a\\nb\"", &["line breaks"]),
            ("method=[]", &["[[method]]"]),
        ],
    );
}

#[test]
fn a_missing_device_or_type_of_activations_is_named() {
    let dir = workspace("lengths = [32]\nmax_tokens = 64");
    let set = ["run", "run.toml", "--set", "model.activations=bf16"];
    let words = [
        "activations in bf16",
        "cpu",
        "model.activations",
        "--device",
    ];
    fail(dir.path(), &set, &words);
    let run = |device| ["run", "run.toml", "--device", device];
    fail(dir.path(), &run("tpu"), &["tpu", "cpu, cuda, wgpu"]);
    fail(dir.path(), &run("cpu:1"), &["cpu:1", "there are 1"]);
    fail(dir.path(), &run("cpu:x"), &["\"x\""]);
    // Tests are built with wgpu at most.
    fail(dir.path(), &run("rocm"), &["--features rocm"]);
    if cfg!(feature = "wgpu") {
        fail(dir.path(), &run("wgpu:99"), &["device wgpu"]);
    } else {
        fail(dir.path(), &run("wgpu"), &["--features wgpu"]);
    }
}
