//! What every model family of the registry must satisfy. A new family fails here until
//! `tests/golden/families/NAME.txt` at the workspace root names its checkpoints with reference
//! values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use longspan_model::{
    Architecture, FAMILIES, ModelFamily, QkvNames, Quantization, Transformer, WeightType, shape,
    shape_names, write_random_checkpoint,
};
use longspan_rope::{Axis, find};
use safetensors::SafeTensors;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(name)
}

#[test]
fn every_family_has_reference_values() {
    for family in FAMILIES {
        let list = golden(&format!("families/{}.txt", family.name()));
        let text = std::fs::read_to_string(&list)
            .unwrap_or_else(|e| panic!("`{}` needs {}: {e}", family.name(), list.display()));
        assert!(text.lines().next().is_some(), "{}: empty", list.display());
        for folder in text.lines() {
            let config = golden(folder).join("config.json");
            let (architecture, _) = Architecture::from_file(&config).unwrap();
            assert_eq!(architecture.family, *family, "{}", config.display());
            let expected = golden(folder).join("expected.safetensors");
            assert!(expected.exists(), "{}: missing", expected.display());
        }
    }
}

#[test]
fn every_family_is_described() {
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name()).collect();
    assert_eq!(names.len(), FAMILIES.len());
    assert!(names.contains(<dyn ModelFamily>::DEFAULT));
    for &family in FAMILIES {
        assert_eq!(find::<dyn ModelFamily>(family.name()).unwrap(), family);
        assert!(!family.summary().is_empty() && !family.summary().contains('\n'));
        assert!(!family.source().is_empty());
    }
}

/// A `config.json` that a family writes is the one that it reads. Only families that store q, k and
/// v as one matrix have a packed form.
#[test]
fn published_shapes_survive_config_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let names = shape_names();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert_eq!(shape("qwen-7B"), None);
    for family in FAMILIES {
        assert!(!family.shapes().is_empty(), "{}", family.name());
        for (name, sizes) in family.shapes() {
            assert_eq!(shape(name).as_ref(), Some(sizes));
            assert_eq!(sizes.family, *family);
            let packable = matches!(family.layout(sizes).qkv, QkvNames::Fused(_));
            for quantization in [None, Some(4), Some(8)] {
                let quantization = quantization.map(|bits| Quantization {
                    bits,
                    group_size: Some(16),
                    desc_act: true,
                });
                let architecture = Architecture {
                    quantization,
                    ..sizes.clone()
                };
                std::fs::write(&path, architecture.to_json().to_string()).unwrap();
                let read = Architecture::from_file(&path);
                if quantization.is_some() && !packable {
                    let error = read.unwrap_err().to_string();
                    assert!(error.contains(family.name()), "{error}");
                    continue;
                }
                let (read, unknown) = read.unwrap();
                assert_eq!(read, architecture);
                assert_eq!(unknown, [""; 0]);
            }
        }
    }
}

#[test]
fn unknown_families_and_fields_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let mut config = shape("micro").unwrap().to_json();
    config["sliding_window"] = 4096.into();
    config["quantization_config"] = serde_json::Value::Null;
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(
        Architecture::from_file(&path).unwrap().1,
        ["sliding_window"]
    );
    config["model_type"] = "gpt2".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = Architecture::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("model_type = \"gpt2\""), "{error}");
    for family in FAMILIES {
        assert!(error.contains(family.name()), "{error}");
    }
}

/// Keys of records contain the digest, so neither the text of `config.json` nor the reading order
/// may change.
#[test]
fn the_digest_of_a_checkpoint_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = Architecture {
        layers: 2,
        ..shape("micro").unwrap()
    };
    write_random_checkpoint(folder.path(), &architecture, WeightType::F32, 3, usize::MAX).unwrap();
    let model = Transformer::load(folder.path(), None, &Device::flex()).unwrap();

    let config = r#"{"architectures":["QWenLMHeadModel"],"model_type":"qwen","vocab_size":464,"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"kv_channels":16,"intermediate_size":352,"seq_length":256,"max_position_embeddings":8192,"rotary_emb_base":10000.0,"rotary_pct":1.0,"layer_norm_epsilon":1e-6,"no_bias":true,"tie_word_embeddings":false,"scale_attn_weights":true,"use_dynamic_ntk":true,"use_logn_attn":true,"tokenizer_class":"QWenTokenizer"}"#;
    let mut order = vec!["transformer.wte.weight".to_owned()];
    for layer in 0..2 {
        let names = [
            "ln_1.weight",
            "attn.c_attn.weight",
            "attn.c_attn.bias",
            "attn.c_proj.weight",
            "ln_2.weight",
            "mlp.w1.weight",
            "mlp.w2.weight",
            "mlp.c_proj.weight",
        ];
        order.extend(names.map(|name| format!("transformer.h.{layer}.{name}")));
    }
    order.extend(["transformer.ln_f.weight", "lm_head.weight"].map(String::from));
    let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.len(), order.len());
    let mut digest = blake3::Hasher::new();
    digest.update(config.as_bytes());
    for name in order {
        digest.update(name.as_bytes()).update(b"F32");
        digest.update(tensors.tensor(&name).unwrap().data());
    }
    assert_eq!(model.digest(), digest.finalize().to_hex().as_str());
}
