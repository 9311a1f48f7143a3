//! `quantization_config` of `config.json`, and the tensors that it implies.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{ModelError, Architecture};

/// How a GPTQ checkpoint packs the matrices of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// Bits of a value: 4 or 8.
    pub bits: usize,
    /// Inputs that share a scale and a zero; `None`: all of them.
    pub group_size: Option<usize>,
    /// Whether groups are of inputs that need not stand side by side.
    pub desc_act: bool,
}

/// Fields that tell how the values were found, or which program's kernels to use.
const IGNORED: [&str; 21] = [
    "backend",
    "batch_size",
    "block_name_to_quantize",
    "cache_block_outputs",
    "damp_percent",
    "dataset",
    "disable_exllama",
    "exllama_config",
    "max_input_length",
    "meta",
    "model_file_base_name",
    "model_name_or_path",
    "model_seqlen",
    "module_name_preceding_first_block",
    "pad_token_id",
    "static_groups",
    "sym",
    "tokenizer",
    "true_sequential",
    "use_cuda_fp16",
    "use_exllama",
];

/// Fields that must have one value, where they are present.
fn fixed() -> [(&'static str, Value, &'static str); 4] {
    [
        (
            "quantization_config.checkpoint_format",
            json!("gptq"),
            "only AutoGPTQ's first format (\"gptq\") is supported",
        ),
        (
            "quantization_config.is_marlin_format",
            json!(false),
            "only AutoGPTQ's own order of values (false) is supported",
        ),
        (
            "quantization_config.lm_head",
            json!(false),
            "only an unquantised LM head (false) is supported",
        ),
        (
            "quantization_config.modules_in_block_to_quantize",
            Value::Null,
            "only checkpoints that quantise all matrices of a layer (null) are supported",
        ),
    ]
}

/// Name within `quantization_config`.
fn short(key: &'static str) -> &'static str {
    key.strip_prefix("quantization_config.").unwrap_or(key)
}

impl Quantization {
    /// Reads the table; the second value lists fields that are not known and were ignored.
    ///
    /// # Errors
    /// Another method, or a value that is not supported.
    pub(crate) fn read(path: &Path, table: &Value) -> Result<(Self, Vec<String>), ModelError> {
        let whole = |expected: &str| ModelError::ConfigValue {
            path: path.to_owned(),
            key: "quantization_config",
            value: table.to_string(),
            expected: expected.to_owned(),
        };
        let empty = Map::new();
        let map = table.as_object().unwrap_or(&empty);
        let error = |key: &'static str, expected: &str| match map.get(short(key)) {
            Some(value) => ModelError::ConfigValue {
                path: path.to_owned(),
                key,
                value: value.to_string(),
                expected: expected.to_owned(),
            },
            None => whole(&format!("{} is missing in it; {expected}", short(key))),
        };
        let method = "quantization_config.quant_method";
        if map.get(short(method)) != Some(&json!("gptq")) {
            let expected = "only \"gptq\" is supported; use the BF16 or FP16 checkpoint, or its GPTQ Int4 or Int8 one";
            return Err(error(method, expected));
        }
        let key = "quantization_config.bits";
        let bits = match map.get(short(key)).and_then(Value::as_u64) {
            Some(bits @ (4 | 8)) => bits as usize,
            _ => return Err(error(key, "4 and 8 are supported")),
        };
        let key = "quantization_config.group_size";
        let group_size = match map.get(short(key)).and_then(Value::as_i64) {
            Some(-1) => None,
            Some(size @ 1..=0x100_0000) => Some(size as usize),
            _ => {
                let expected =
                    "a whole number from 1 to 16777216, or -1 for all inputs, is expected";
                return Err(error(key, expected));
            }
        };
        let key = "quantization_config.desc_act";
        let Some(desc_act) = map.get(short(key)).and_then(Value::as_bool) else {
            return Err(error(key, "true or false is expected"));
        };
        for (key, only, expected) in fixed() {
            if map.get(short(key)).is_some_and(|value| *value != only) {
                return Err(error(key, expected));
            }
        }
        let known = |key: &str| {
            ["quant_method", "bits", "group_size", "desc_act"].contains(&key)
                || IGNORED.contains(&key)
                || fixed().iter().any(|field| short(field.0) == key)
        };
        let unknown = map.keys().filter(|key| !known(key));
        let quantization = Quantization {
            bits,
            group_size,
            desc_act,
        };
        let named = unknown.map(|key| format!("quantization_config.{key}"));
        Ok((quantization, named.collect()))
    }

    /// The table as `config.json` has it.
    pub(crate) fn to_json(self) -> Value {
        json!({
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size.map_or(-1, |size| size as i64),
            "desc_act": self.desc_act,
            "sym": true,
        })
    }

    /// Groups of a matrix of so many inputs.
    pub(crate) fn groups(self, inputs: usize) -> usize {
        inputs.div_ceil(self.group(inputs))
    }

    /// Inputs of a group of such a matrix.
    pub(crate) fn group(self, inputs: usize) -> usize {
        self.group_size.map_or(inputs, |size| size.min(inputs))
    }
}

/// A tensor that a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredTensor {
    pub shape: Vec<usize>,
    /// i32 instead of a float type.
    pub integer: bool,
    /// Whether the model can be made without it.
    pub optional: bool,
}

impl Architecture {
    /// That the widths of a model that is packed fill whole words.
    ///
    /// # Errors
    /// Those of the file at `path` do not.
    pub fn check_packing(&self, path: &Path) -> Result<(), ModelError> {
        let Some(Quantization { bits, .. }) = self.quantization else {
            return Ok(());
        };
        let values = 32 / bits;
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("half of intermediate_size", self.ffn),
        ];
        match sizes
            .into_iter()
            .find(|(_, size)| !size.is_multiple_of(values))
        {
            None => Ok(()),
            Some((what, size)) => Err(ModelError::ConfigValue {
                path: path.to_owned(),
                key: "quantization_config.bits",
                value: bits.to_string(),
                expected: format!(
                    "{what} is {size}, which is not a multiple of the {values} values of a word"
                ),
            }),
        }
    }

    /// Every tensor that a checkpoint holds, in the order of the forward pass. AutoGPTQ writes a matrix `[o, i]` of a
    /// layer as `qweight` `[i * bits / 32, o]`, `qzeros` `[groups, o * bits / 32]`, `scales` `[groups, o]` and `g_idx` `[i]`, and
    /// gives every one of them a `bias` `[o]`.
    pub(crate) fn stored_tensors(&self) -> Vec<(String, StoredTensor)> {
        let required = |shape| StoredTensor {
            shape,
            integer: false,
            optional: false,
        };
        let mut stored = Vec::new();
        for (name, shape) in self.tensors() {
            let layer = name.strip_suffix(".weight");
            let layer = layer.filter(|name| name.starts_with("transformer.h.") && shape.len() == 2);
            let (Some(quantization), Some(layer)) = (self.quantization, layer) else {
                stored.push((name, required(shape)));
                continue;
            };
            let [o, i] = [shape[0], shape[1]];
            let (bits, groups) = (quantization.bits, quantization.groups(i));
            let integers = |shape, optional| StoredTensor {
                shape,
                integer: true,
                optional,
            };
            stored.extend([
                (
                    format!("{layer}.qweight"),
                    integers(vec![i * bits / 32, o], false),
                ),
                (
                    format!("{layer}.qzeros"),
                    integers(vec![groups, o * bits / 32], false),
                ),
                (format!("{layer}.scales"), required(vec![groups, o])),
                (
                    format!("{layer}.g_idx"),
                    integers(vec![i], !quantization.desc_act),
                ),
            ]);
            // That of c_attn is Qwen's own, and stands in the list.
            if !layer.ends_with("c_attn") {
                let bias = StoredTensor {
                    optional: true,
                    ..required(vec![o])
                };
                stored.push((format!("{layer}.bias"), bias));
            }
        }
        stored
    }
}
