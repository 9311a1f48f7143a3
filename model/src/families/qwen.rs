//! The first Qwen: 1.8B, 7B, 14B and 72B.

use longspan_rope::Variant;
use serde_json::{Value, json};

use super::{Architecture, Layout, ModelFamily, QkvNames};
use crate::{ConfigFields, ModelError};

/// `model_type = "qwen"`.
pub struct Family;

impl Variant for Family {
    fn name(&self) -> &'static str {
        "qwen"
    }

    fn summary(&self) -> &'static str {
        "the first Qwen (1.8B, 7B, 14B, 72B; base and chat)"
    }

    fn source(&self) -> &'static str {
        "arXiv 2309.16609; modeling_qwen.py of the published checkpoints"
    }
}

/// Fields without effect on a forward pass, and those whose arithmetic the method of a run replaces
/// (`use_dynamic_ntk`, `use_logn_attn`).
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

/// Fields with one supported value, and what that value means.
fn fixed() -> [(&'static str, Value, &'static str); 5] {
    [
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

impl ModelFamily for Family {
    fn read(&self, fields: &mut ConfigFields) -> Result<Architecture, ModelError> {
        for (key, only, expected) in fixed() {
            fields.fixed(key, &only, expected)?;
        }
        fields.ignore(&IGNORED);
        const LARGEST: u64 = ConfigFields::LARGEST;
        let architecture = Architecture {
            family: &Family,
            vocab_size: fields.count("vocab_size", 1..=LARGEST)?,
            hidden_size: fields.count("hidden_size", 2..=LARGEST)?,
            layers: fields.count("num_hidden_layers", 1..=4096)?,
            heads: fields.count("num_attention_heads", 1..=4096)?,
            head_dim: fields.count("kv_channels", 2..=4096)?,
            ffn: fields.count("intermediate_size", 2..=LARGEST)? / 2,
            trained: fields.count("seq_length", 2..=1 << 31)?,
            rope_base: fields.number("rotary_emb_base", 1.0)?,
            epsilon: fields.number("layer_norm_epsilon", 0.0)?,
            quantization: None,
        };
        if fields.count("intermediate_size", 2..=LARGEST)? % 2 != 0 {
            let expected = "it is twice the width of the feed-forward layer, so it must be even";
            return Err(fields.error("intermediate_size", expected));
        }
        let Architecture {
            heads, head_dim, ..
        } = architecture;
        if !head_dim.is_multiple_of(2) {
            return Err(fields.error("kv_channels", "rotation needs an even head size"));
        }
        if heads * head_dim != architecture.hidden_size {
            let width = heads * head_dim;
            let expected =
                format!("num_attention_heads * kv_channels = {heads} * {head_dim} = {width}");
            return Err(fields.error("hidden_size", expected));
        }
        Ok(architecture)
    }

    fn to_json(&self, architecture: &Architecture) -> Value {
        json!({
            "architectures": ["QWenLMHeadModel"],
            "model_type": "qwen",
            "vocab_size": architecture.vocab_size,
            "hidden_size": architecture.hidden_size,
            "num_hidden_layers": architecture.layers,
            "num_attention_heads": architecture.heads,
            "kv_channels": architecture.head_dim,
            "intermediate_size": 2 * architecture.ffn,
            "seq_length": architecture.trained,
            "max_position_embeddings": architecture.trained.max(8192),
            "rotary_emb_base": architecture.rope_base,
            "rotary_pct": 1.0,
            "layer_norm_epsilon": architecture.epsilon,
            "no_bias": true,
            "tie_word_embeddings": false,
            "scale_attn_weights": true,
            "use_dynamic_ntk": true,
            "use_logn_attn": true,
            "tokenizer_class": "QWenTokenizer",
        })
    }

    fn layout(&self, _architecture: &Architecture) -> Layout {
        Layout {
            embedding: "transformer.wte",
            layers: "transformer.h",
            attention_norm: "ln_1",
            qkv: QkvNames::Fused("attn.c_attn"),
            qkv_bias: true,
            output: "attn.c_proj",
            mlp_norm: "ln_2",
            // Qwen gates with its second matrix: w1(x) * silu(w2(x)).
            up: "mlp.w1",
            gate: "mlp.w2",
            down: "mlp.c_proj",
            norm: "transformer.ln_f",
            head: Some("lm_head"),
        }
    }

    fn shapes(&self) -> &'static [(&'static str, Architecture)] {
        &SHAPES
    }
}

/// A small model for tests, and the published ones (their `config.json` files).
static SHAPES: [(&str, Architecture); 5] = [
    ("micro", sizes(4, [4, 16, 176], 464, 256, 1e4)),
    ("qwen-1.8b", sizes(24, [16, 128, 5504], 151_936, 8192, 1e4)),
    ("qwen-7b", sizes(32, [32, 128, 11_008], 151_936, 8192, 1e4)),
    ("qwen-14b", sizes(40, [40, 128, 13_696], 152_064, 2048, 1e4)),
    (
        "qwen-72b",
        sizes(80, [64, 128, 24_576], 152_064, 32_768, 1e6),
    ),
];

const fn sizes(
    layers: usize,
    [heads, head_dim, ffn]: [usize; 3],
    vocab_size: usize,
    trained: usize,
    rope_base: f64,
) -> Architecture {
    Architecture {
        family: &Family,
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
