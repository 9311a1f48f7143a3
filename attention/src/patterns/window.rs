//! Layer-wise window attention: a query sees the last `w` tokens, itself included, and the first
//! `sinks` tokens of the sequence. Source: QwenLM/Qwen issues 206 and 422 (windows by layer);
//! arXiv 2309.17453 (sinks).

use std::num::NonZeroUsize;

use longspan_rope::{Length, OptionDoc, OptionError, Options, Variant, parse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AttentionPattern, BandKeys, Kept};
use crate::{Layer, Model};

/// Registry entry of `window`.
pub struct Pattern;

/// The options of `window`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub size: Sizes,
    #[serde(default)]
    pub sinks: usize,
    #[serde(default)]
    pub alpha: Alpha,
}

/// The length from which the frequencies of a windowed layer are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Alpha {
    /// The length of the pass, in every layer.
    #[default]
    Global,
    /// `min(length, window)` of the layer.
    PerLayer,
}

/// Windows of the layers, first layer first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub(crate) enum Sizes {
    /// One window for all layers.
    All(Size),
    /// Runs of layers: `[[4, 2048], [4, 4096], [24, "full"]]`.
    Runs(Vec<(usize, Size)>),
    /// One entry a layer: `[64, 64, 128, "full"]`.
    List(Vec<Size>),
}

/// Tokens that a query sees, itself included; `None`: all up to the query.
pub(crate) type Size = Option<NonZeroUsize>;

impl Sizes {
    /// The window of each of `layers` layers.
    fn of_layers(&self, layers: usize) -> Result<Vec<Size>, OptionError> {
        let runs: Vec<(usize, Size)> = match self {
            Sizes::All(size) => vec![(layers, *size)],
            Sizes::Runs(runs) => runs.clone(),
            Sizes::List(sizes) => sizes.iter().map(|&size| (1, size)).collect(),
        };
        let given = (runs.iter()).fold(0, |sum: usize, run| sum.saturating_add(run.0));
        if given != layers {
            return Err(misfit(format!(
                "the windows cover {given} layers, the model has {layers}; give one size for all, a \
                 list of {layers} sizes, or runs that add up to {layers}"
            )));
        }
        let sizes = runs.into_iter();
        Ok(sizes
            .flat_map(|(count, size)| std::iter::repeat_n(size, count))
            .collect())
    }
}

fn misfit(reason: String) -> OptionError {
    OptionError::Misfit {
        variant: "window",
        reason,
    }
}

impl Params {
    /// The window of a layer.
    fn window(&self, model: &Model, layer: usize) -> Result<Size, OptionError> {
        let windows = self.size.of_layers(model.layers)?;
        let none = windows.iter().all(Option::is_none);
        if none && self.sinks > 0 {
            return Err(misfit(format!(
                "sinks = {}, but no layer has a window, so all tokens are visible; give a window too, \
                 or remove sinks",
                self.sinks
            )));
        }
        if none && self.alpha == Alpha::PerLayer {
            return Err(misfit(
                "alpha = \"per_layer\", but no layer has a window; give windows, or remove alpha"
                    .to_owned(),
            ));
        }
        Ok(windows[layer])
    }
}

impl Variant for Pattern {
    fn name(&self) -> &'static str {
        "window"
    }

    fn summary(&self) -> &'static str {
        "a query sees the last tokens up to itself, by layer, and the first tokens of the sequence"
    }

    fn source(&self) -> &'static str {
        "QwenLM/Qwen issues 206 and 422; sinks: StreamingLLM, arXiv 2309.17453"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[
            OptionDoc {
                name: "size",
                default: "required",
                meaning: "tokens seen, the query included: a number or \"full\", for all layers or in \
                          a list with one a layer, or runs of layers such as [[4, 2048], [24, \"full\"]]",
            },
            OptionDoc {
                name: "sinks",
                default: "0",
                meaning: "first tokens of the sequence that stay visible outside the window",
            },
            OptionDoc {
                name: "alpha",
                default: "\"global\"",
                meaning: "length from which a layer's frequencies are computed: \"global\": that of the \
                          pass; \"per_layer\": at most the layer's window",
            },
        ]
    }
}

impl AttentionPattern for Pattern {
    fn bands(&self, layer: &Layer, options: &Options) -> Result<Vec<BandKeys>, OptionError> {
        let params: Params = parse(self, options)?;
        let Some(window) = params.window(layer.model, layer.index)? else {
            return Ok(vec![BandKeys::in_place(layer, |i| 0..i + 1)]);
        };
        let first = |i: u32| (i as usize + 1).saturating_sub(window.get()) as u32;
        let mut bands = vec![BandKeys::in_place(layer, |i| first(i)..i + 1)];
        // Sinks are a band of their own, so that a kernel walks over two short ranges of keys and
        // never over the keys between them.
        if params.sinks > 0 {
            let sinks = params.sinks.min(layer.length.total) as u32;
            bands.push(BandKeys::in_place(layer, |i| 0..sinks.min(first(i))));
        }
        Ok(bands)
    }

    fn rope_length(&self, layer: &Layer, options: &Options) -> Result<Length, OptionError> {
        let params: Params = parse(self, options)?;
        let length = layer.length;
        Ok(
            match (params.alpha, params.window(layer.model, layer.index)?) {
                (Alpha::PerLayer, Some(window)) => Length {
                    total: length.total.min(window.get()),
                    prefill: length.prefill.min(window.get()),
                },
                _ => length,
            },
        )
    }

    fn kept(&self, model: &Model, layer: usize, options: &Options) -> Result<Kept, OptionError> {
        let params: Params = parse(self, options)?;
        let last = params.window(model, layer)?;
        Ok(Kept {
            last: last.map(NonZeroUsize::get),
            first: if last.is_some() { params.sinks } else { 0 },
        })
    }
}

// The forms of `size` are read from a `Value` by hand: serde's untagged enums can only say that
// nothing matched.

impl TryFrom<Value> for Sizes {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        Ok(match &value {
            Value::Array(entries) if entries.iter().all(Value::is_array) => {
                Sizes::Runs(entries.iter().map(run).collect::<Result<_, _>>()?)
            }
            Value::Array(entries) => {
                Sizes::List(entries.iter().map(size).collect::<Result<_, _>>()?)
            }
            one => Sizes::All(size(one)?),
        })
    }
}

fn size(value: &Value) -> Result<Size, String> {
    let tokens = value.as_u64().map(|tokens| tokens as usize);
    match (tokens.and_then(NonZeroUsize::new), value.as_str()) {
        (Some(tokens), _) => Ok(Some(tokens)),
        (_, Some("full")) => Ok(None),
        _ => Err(format!(
            "{value} is not a size; give a number of tokens from 1 (the query itself) or \"full\", for \
             all layers or in a list with one a layer, or runs of layers such as \
             [[4, 2048], [24, \"full\"]]"
        )),
    }
}

fn run(value: &Value) -> Result<(usize, Size), String> {
    match value.as_array().map(Vec::as_slice) {
        Some([count, window]) if count.is_u64() => {
            Ok((count.as_u64().unwrap_or(0) as usize, size(window)?))
        }
        _ => Err(format!(
            "{value} is not a run of layers; a run is [layers, size], such as [4, 2048]"
        )),
    }
}

impl From<Sizes> for Value {
    fn from(sizes: Sizes) -> Value {
        let value = |size: Size| size.map_or(json!("full"), |tokens| json!(tokens.get()));
        match sizes {
            Sizes::All(size) => value(size),
            Sizes::List(sizes) => sizes.into_iter().map(value).collect(),
            Sizes::Runs(runs) => (runs.into_iter())
                .map(|(count, size)| json!([count, value(size)]))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(value: Value) -> Result<Sizes, String> {
        Sizes::try_from(value)
    }

    #[test]
    fn every_form_of_a_size_reads_and_writes_back() {
        for (form, layers, expected) in [
            (json!("full"), 3, vec![None; 3]),
            (json!(2048), 2, vec![Some(2048); 2]),
            (json!([64, "full"]), 2, vec![Some(64), None]),
            (
                json!([[2, 64], [1, "full"]]),
                3,
                vec![Some(64), Some(64), None],
            ),
        ] {
            let read = sizes(form.clone()).unwrap();
            let expected: Vec<Size> = (expected.into_iter())
                .map(|size| size.and_then(NonZeroUsize::new))
                .collect();
            assert_eq!(read.of_layers(layers).unwrap(), expected, "{form}");
            assert_eq!(Value::from(read), form);
        }
    }

    #[test]
    fn a_bad_size_is_refused_with_what_was_read() {
        for (form, words) in [
            (json!(0), "0 is not a size"),
            (json!("ful"), "\"ful\""),
            (json!([[4, 2048, 1]]), "[4,2048,1]"),
            (json!([[4, 2048], 64]), "[4,2048] is not a size"),
        ] {
            let error = sizes(form).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_list_of_windows_must_cover_the_layers() {
        for form in [json!([[usize::MAX, 8], [3, 8]]), json!([8, 8, 8])] {
            let error = sizes(form).unwrap().of_layers(4).unwrap_err().to_string();
            assert!(error.contains("the model has 4"), "{error}");
        }
    }
}
