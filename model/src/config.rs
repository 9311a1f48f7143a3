//! `config.json` of the first Qwen family.

use std::ops::RangeInclusive;
use std::path::Path;

use longspan_attention::Model;
use longspan_rope::Rope;
use serde_json::{Map, Value, json};

use crate::{ModelError, Quantization};

/// The fields of `config.json` that shape the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Rows of the embedding and of the LM head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; all of them have keys and values of their own.
    pub heads: usize,
    /// Size of a head (`kv_channels`).
    pub head_dim: usize,
    /// Width of the feed-forward layer: half of `intermediate_size`.
    pub ffn: usize,
    /// Trained length in tokens (`seq_length`).
    pub trained: usize,
    /// Base of the rotary frequencies (`rotary_emb_base`).
    pub rope_base: f64,
    /// Added to the mean square in RMSNorm (`layer_norm_epsilon`).
    pub epsilon: f64,
    /// How the matrices of the layers are packed; `None`: they are not.
    pub quantization: Option<Quantization>,
}

/// Largest width or vocabulary that is taken for meant: their products must not overflow.
const MOST: u64 = 1 << 24;

/// Fields that carry no arithmetic of a forward pass, or whose arithmetic the methods of a run
/// replace (`use_dynamic_ntk`, `use_logn_attn`).
const IGNORED: [&str; 29] = [
    "_name_or_path",
    "architectures",
    "attn_dropout_prob",
    "auto_map",
    "bf16",
    "bos_token_id",
    "emb_dropout_prob",
    "eos_token_id",
    "fp16",
    "fp32",
    "initializer_range",
    "max_position_embeddings",
    "onnx_safe",
    "pad_token_id",
    "softmax_in_fp32",
    "tokenizer_class",
    "tokenizer_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_cache_kernel",
    "use_cache_quantization",
    "use_dynamic_ntk",
    "use_flash_attn",
    "use_logn_attn",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "bias_dropout_fusion",
];

const SHAPING: [&str; 9] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_channels",
    "intermediate_size",
    "seq_length",
    "rotary_emb_base",
    "layer_norm_epsilon",
];

/// Fields that must have one value, where they are present, and what that means.
fn fixed() -> [(&'static str, Value, &'static str); 6] {
    [
        (
            "model_type",
            json!("qwen"),
            "only the first Qwen family (\"qwen\") is supported",
        ),
        (
            "rotary_pct",
            json!(1.0),
            "only whole-head rotation (1.0) is supported",
        ),
        (
            "no_bias",
            json!(true),
            "only bias-free projections (true) are supported",
        ),
        (
            "tie_word_embeddings",
            json!(false),
            "only untied embeddings (false) are supported",
        ),
        (
            "scale_attn_weights",
            json!(true),
            "only scaled attention (true) is supported",
        ),
        (
            "apply_residual_connection_post_layernorm",
            json!(false),
            "only residuals taken before the norm (false) are supported",
        ),
    ]
}

/// Reads fields and says which one is wrong.
struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn error(&self, key: &'static str, expected: impl Into<String>) -> ModelError {
        ModelError::ConfigValue {
            path: self.path.to_owned(),
            key,
            value: self.map.get(key).unwrap_or(&Value::Null).to_string(),
            expected: expected.into(),
        }
    }

    fn value(&self, key: &'static str) -> Result<&Value, ModelError> {
        self.map.get(key).ok_or_else(|| ModelError::Json {
            path: self.path.to_owned(),
            message: format!("field {key} is missing; the model's shape depends on it"),
        })
    }

    fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<usize, ModelError> {
        match self.value(key)?.as_u64() {
            Some(n) if range.contains(&n) => Ok(n as usize),
            _ => {
                let (from, to) = (range.start(), range.end());
                Err(self.error(
                    key,
                    format!("a whole number from {from} to {to} is expected"),
                ))
            }
        }
    }

    fn number(&self, key: &'static str, above: f64) -> Result<f64, ModelError> {
        match self.value(key)?.as_f64() {
            Some(x) if x.is_finite() && x > above => Ok(x),
            _ => Err(self.error(key, format!("a number above {above} is expected"))),
        }
    }
}

impl Architecture {
    /// Reads `config.json`; the second value lists fields that are not known and were ignored.
    ///
    /// # Errors
    /// A field that shapes the model is missing, is out of range, contradicts another, or asks for
    /// arithmetic that is not implemented.
    pub fn from_file(path: &Path) -> Result<(Self, Vec<String>), ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let map: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| ModelError::Json {
                path: path.to_owned(),
                message: e.to_string(),
            })?;
        let fields = Fields { path, map: &map };
        fields.value("model_type")?;
        for (key, only, expected) in fixed() {
            // 1 and 1.0 are one number.
            let same = |value: &Value| value.as_f64().is_some() && value.as_f64() == only.as_f64();
            if map
                .get(key)
                .is_some_and(|value| *value != only && !same(value))
            {
                return Err(fields.error(key, expected));
            }
        }
        let (quantization, ignored) = match map.get("quantization_config") {
            None | Some(Value::Null) => (None, Vec::new()),
            Some(table) => {
                let (quantization, ignored) = Quantization::read(path, table)?;
                (Some(quantization), ignored)
            }
        };
        let config = Architecture {
            vocab_size: fields.count("vocab_size", 1..=MOST)?,
            hidden_size: fields.count("hidden_size", 2..=MOST)?,
            layers: fields.count("num_hidden_layers", 1..=4096)?,
            heads: fields.count("num_attention_heads", 1..=4096)?,
            head_dim: fields.count("kv_channels", 2..=4096)?,
            ffn: fields.count("intermediate_size", 2..=MOST)? / 2,
            trained: fields.count("seq_length", 2..=1 << 31)?,
            rope_base: fields.number("rotary_emb_base", 1.0)?,
            epsilon: fields.number("layer_norm_epsilon", 0.0)?,
            quantization,
        };
        if fields.count("intermediate_size", 2..=MOST)? % 2 != 0 {
            let expected = "it is twice the width of the feed-forward layer, so it must be even";
            return Err(fields.error("intermediate_size", expected));
        }
        if !config.head_dim.is_multiple_of(2) {
            return Err(fields.error("kv_channels", "rotation needs an even head size"));
        }
        if config.heads * config.head_dim != config.hidden_size {
            let expected = format!(
                "num_attention_heads * kv_channels = {} * {} = {}",
                config.heads,
                config.head_dim,
                config.heads * config.head_dim
            );
            return Err(fields.error("hidden_size", expected));
        }
        config.check_packing(path)?;
        let known = |key: &str| {
            key == "quantization_config"
                || SHAPING.contains(&key)
                || IGNORED.contains(&key)
                || fixed().iter().any(|field| field.0 == key)
        };
        let unknown = map.keys().filter(|key| !known(key)).cloned();
        Ok((config, unknown.chain(ignored).collect()))
    }

    /// The fields as `config.json` has them.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "architectures": ["QWenLMHeadModel"],
            "model_type": "qwen",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "kv_channels": self.head_dim,
            "intermediate_size": 2 * self.ffn,
            "seq_length": self.trained,
            "max_position_embeddings": self.trained.max(8192),
            "rotary_emb_base": self.rope_base,
            "rotary_pct": 1.0,
            "layer_norm_epsilon": self.epsilon,
            "no_bias": true,
            "tie_word_embeddings": false,
            "scale_attn_weights": true,
            "use_dynamic_ntk": true,
            "use_logn_attn": true,
            "tokenizer_class": "QWenTokenizer",
        });
        if let Some(quantization) = self.quantization {
            json["quantization_config"] = quantization.to_json();
        }
        json
    }

    /// Name and shape of every parameter of the model, packed or not, in the order of the forward pass.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (h, ffn) = (self.hidden_size, self.ffn);
        let mut tensors = vec![(
            "transformer.wte.weight".to_owned(),
            vec![self.vocab_size, h],
        )];
        for layer in 0..self.layers {
            let of_layer = [
                ("ln_1.weight", vec![h]),
                ("attn.c_attn.weight", vec![3 * h, h]),
                ("attn.c_attn.bias", vec![3 * h]),
                ("attn.c_proj.weight", vec![h, h]),
                ("ln_2.weight", vec![h]),
                ("mlp.w1.weight", vec![ffn, h]),
                ("mlp.w2.weight", vec![ffn, h]),
                ("mlp.c_proj.weight", vec![h, ffn]),
            ];
            tensors.extend(
                of_layer
                    .into_iter()
                    .map(|(name, shape)| (format!("transformer.h.{layer}.{name}"), shape)),
            );
        }
        tensors.push(("transformer.ln_f.weight".to_owned(), vec![h]));
        tensors.push(("lm_head.weight".to_owned(), vec![self.vocab_size, h]));
        tensors
    }

    /// What a plan needs to know of the model.
    pub fn geometry(&self) -> Model {
        Model {
            rope: Rope {
                dim: self.head_dim,
                base: self.rope_base,
                trained: self.trained,
            },
            layers: self.layers,
        }
    }
}

/// Sizes of the published models, and a small one (sources: their `config.json` files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 4 layers, 64 wide.
    Micro,
    /// Qwen-1.8B.
    Qwen1_8B,
    /// Qwen-7B.
    Qwen7B,
    /// Qwen-14B.
    Qwen14B,
    /// Qwen-72B.
    Qwen72B,
}

impl Shape {
    /// The configuration of this size.
    pub fn config(self) -> Architecture {
        let (layers, heads, head_dim, ffn, vocab_size, trained, rope_base) = match self {
            Shape::Micro => (4, 4, 16, 176, 464, 256, 1e4),
            Shape::Qwen1_8B => (24, 16, 128, 5504, 151_936, 8192, 1e4),
            Shape::Qwen7B => (32, 32, 128, 11_008, 151_936, 8192, 1e4),
            Shape::Qwen14B => (40, 40, 128, 13_696, 152_064, 2048, 1e4),
            Shape::Qwen72B => (80, 64, 128, 24_576, 152_064, 32_768, 1e6),
        };
        Architecture {
            vocab_size,
            hidden_size: heads * head_dim,
            layers,
            heads,
            head_dim,
            ffn,
            trained,
            rope_base,
            epsilon: 1e-6,
            quantization: None,
        }
    }
}
