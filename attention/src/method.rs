//! A method: one variant of each attention axis, and the plans that follow from them.

use std::ops::Range;
use std::sync::Arc;

use longspan_rope::{Axis, Choice, FrequencyMethod, Length, OptionError, Options, PerLayer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::table::MethodTable;
use crate::{AttentionPattern, Band, BandKeys, Kept, Layer, LayerPlan, Model, Plans, QueryScale};

/// A frequency method, an attention pattern and a query scale under one name: a row in tables of
/// results, a `[[method]]` in a config:
///
/// ```toml
/// [[method]]
/// name = "dynamic_ntk + logn + window_attn"
/// rope = { kind = "dynamic_ntk" }
/// scale = { kind = "logn" }
/// attention = { kind = "window", size = [[4, 2048], [4, 4096], [24, "full"]], sinks = 4 }
/// ```
///
/// `logn`, `window` and `sinks` are short forms of the latter two: `logn = true`, `window = 2048`.
/// Each of the three keys also takes runs of layers, which repeat over the model:
/// `rope = { layers = [[3, { kind = "none" }], [1, { kind = "yarn", factor = 4.0 }]] }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MethodTable", into = "MethodTable")]
pub struct Method {
    /// Name in tables, figures and records; unique in a config.
    pub name: String,
    /// Frequencies; default `none`, those of the checkpoint.
    pub rope: PerLayer<dyn FrequencyMethod>,
    /// Which keys a query sees; default `full`.
    pub attention: PerLayer<dyn AttentionPattern>,
    /// Factor on queries; default `none`.
    pub scale: PerLayer<dyn QueryScale>,
}

impl Method {
    /// Plain RoPE with full attention.
    pub fn named(name: &str) -> Self {
        Method {
            name: name.to_owned(),
            rope: PerLayer::default(),
            attention: PerLayer::default(),
            scale: PerLayer::default(),
        }
    }

    /// This method with a frequency method of your own in every layer.
    pub fn with_rope(mut self, rope: impl FrequencyMethod + 'static) -> Self {
        self.rope = Choice::<dyn FrequencyMethod>::own(Arc::new(rope)).into();
        self
    }

    /// This method with an attention pattern of your own in every layer.
    pub fn with_attention(mut self, pattern: impl AttentionPattern + 'static) -> Self {
        self.attention = Choice::<dyn AttentionPattern>::own(Arc::new(pattern)).into();
        self
    }

    /// This method with a query scale of your own in every layer.
    pub fn with_scale(mut self, scale: impl QueryScale + 'static) -> Self {
        self.scale = Choice::<dyn QueryScale>::own(Arc::new(scale)).into();
        self
    }

    /// Everything that the method computes: all of it but its name, which is a label. Enters the
    /// keys of records; the same for the same settings, in whichever form a config gave them.
    pub fn settings(&self) -> Value {
        let mut settings = serde_json::to_value(self).expect("a method is plain data");
        if let Value::Object(keys) = &mut settings {
            keys.remove("name");
        }
        settings
    }

    /// Replaces options that name a file by the file's content.
    ///
    /// # Errors
    /// A variant is unknown, or a file is missing or unusable.
    pub fn resolve(&mut self) -> Result<(), PlanError> {
        self.rope.resolve().map_err(PlanError::Rope)?;
        self.attention.resolve().map_err(PlanError::Attention)?;
        self.scale.resolve().map_err(PlanError::Scale)
    }

    /// The plan of every layer for a pass over `length.total` tokens.
    ///
    /// # Errors
    /// A variant is unknown, refuses its options, or does not fit the model.
    pub fn plan(&self, model: &Model, length: Length) -> Result<Plans, PlanError> {
        self.plan_queries(model, length, 0..length.total)
    }

    /// [`Method::plan`] for the queries at `queries` alone: key ranges, query positions and scales
    /// have one entry for each of them, key positions one for each of `length.total` keys.
    ///
    /// # Errors
    /// As [`Method::plan`].
    pub fn plan_queries(
        &self,
        model: &Model,
        length: Length,
        queries: Range<usize>,
    ) -> Result<Plans, PlanError> {
        let rope = of_layers(&self.rope, model).map_err(PlanError::Rope)?;
        let patterns = of_layers(&self.attention, model).map_err(PlanError::Attention)?;
        let scales = of_layers(&self.scale, model).map_err(PlanError::Scale)?;
        let plan = |index: usize| {
            let layer = Layer {
                model,
                index,
                length,
                queries: queries.clone(),
            };
            layer_plan(&layer, rope[index], patterns[index], scales[index])
        };
        (0..model.layers).map(plan).collect()
    }

    /// The keys that a cache must keep in each layer, first layer first.
    ///
    /// # Errors
    /// As [`Method::plan`].
    pub fn kept(&self, model: &Model) -> Result<Vec<Kept>, PlanError> {
        let patterns = of_layers(&self.attention, model).map_err(PlanError::Attention)?;
        let layers = patterns.into_iter().enumerate();
        layers
            .map(|(layer, (pattern, options))| pattern.kept(model, layer, options))
            .collect::<Result<_, _>>()
            .map_err(PlanError::Attention)
    }
}

/// The variant and the options of each layer.
fn of_layers<'a, A: Axis + ?Sized>(
    choices: &'a PerLayer<A>,
    model: &Model,
) -> Result<Vec<(&'a A, &'a Options)>, OptionError> {
    let layers = choices.of_layers(model.layers)?.into_iter();
    layers
        .map(|choice: &Choice<A>| Ok((choice.variant()?, choice.options())))
        .collect()
}

fn layer_plan(
    layer: &Layer,
    (rope, rope_options): (&dyn FrequencyMethod, &Options),
    (pattern, pattern_options): (&dyn AttentionPattern, &Options),
    (scale, scale_options): (&dyn QueryScale, &Options),
) -> Result<LayerPlan, PlanError> {
    let bands = (pattern.bands(layer, pattern_options)).map_err(PlanError::Attention)?;
    let length = (pattern.rope_length(layer, pattern_options)).map_err(PlanError::Attention)?;
    let spectrum =
        (rope.spectrum(&layer.model.rope, length, rope_options)).map_err(PlanError::Rope)?;
    let rows = 0..layer.queries.len();
    let seen: Vec<usize> = rows
        .map(|row| bands.iter().map(|band| band.keys[row].len()).sum())
        .collect();
    let query_scale = (scale.factors(layer, &seen, scale_options)).map_err(PlanError::Scale)?;
    let with_spectrum = |band: BandKeys| Band {
        keys: band.keys,
        q_position: band.q_position,
        k_position: band.k_position,
        spectrum: spectrum.clone(),
    };
    Ok(LayerPlan {
        bands: bands.into_iter().map(with_spectrum).collect(),
        query_scale,
    })
}

/// Why a method cannot be planned for a model; each message begins with the key of the config.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The frequency method refused.
    #[error("rope: {0}")]
    Rope(OptionError),
    /// The attention pattern refused.
    #[error("attention: {0}")]
    Attention(OptionError),
    /// The query scale refused.
    #[error("scale: {0}")]
    Scale(OptionError),
}
