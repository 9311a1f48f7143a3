//! Fields of a checkpoint's `config.json`.

use serde_json::Value;

use crate::RUN;
use crate::shared::{fail, workspace};

#[test]
fn a_bad_field_of_config_json_is_named() {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/config.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
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
        let mut config = good.clone();
        config.as_object_mut().unwrap().remove(key).unwrap();
        std::fs::write(&path, config.to_string()).unwrap();
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
        let mut config = good.clone();
        config[key] = serde_json::from_str(value).unwrap();
        std::fs::write(&path, config.to_string()).unwrap();
        fail(dir.path(), &RUN, &["config.json", key, value]);
    }
    std::fs::write(&path, "{").unwrap();
    fail(dir.path(), &RUN, &["config.json", "line 1"]);
}
