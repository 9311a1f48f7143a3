//! From a method to the bands of each layer.

use std::ops::Range;
use std::sync::Arc;

use longspan_rope::{Length, Rope, RopeError, Spectrum};

use crate::{Alpha, LogN, LogNLength, Method};

/// What a plan needs to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Rotary geometry and trained length.
    pub rope: Rope,
    /// Number of layers.
    pub layers: usize,
}

/// A set of keys that a query attends to under one choice of positions and frequencies.
///
/// The bands of a plan are disjoint for each query; their outputs are merged by log-sum-exp, which
/// equals one softmax over all their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// The keys each query sees: one half-open range of key indices a query; may be empty.
    /// Neither end ever decreases from one query to the next.
    pub keys: Vec<Range<u32>>,
    /// Rotary position of each query.
    pub q_position: Vec<f64>,
    /// Rotary position of each key.
    pub k_position: Vec<f64>,
    /// Frequencies by which the positions turn q and k, and the factor on their cos and sin.
    pub spectrum: Spectrum,
}

/// What one layer's attention does with a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// Disjoint bands of keys.
    pub bands: Vec<Band>,
    /// Factor on each query after rotation (LogN; 1 where there is none).
    pub query_scale: Vec<f64>,
}

impl LayerPlan {
    /// Whether the first tokens of a longer pass under `longer` get exactly what `self` gives them.
    ///
    /// When it holds in every layer, causality makes the loss of those tokens equal, so one pass over
    /// the longer sequence yields the shorter one's numbers too.
    pub fn is_prefix_of(&self, longer: &LayerPlan) -> bool {
        fn starts<T: PartialEq>(long: &[T], short: &[T]) -> bool {
            long.get(..short.len()).is_some_and(|head| head == short)
        }
        self.bands.len() == longer.bands.len()
            && starts(&longer.query_scale, &self.query_scale)
            && self.bands.iter().zip(&longer.bands).all(|(short, long)| {
                short.spectrum == long.spectrum
                    && starts(&long.keys, &short.keys)
                    && starts(&long.q_position, &short.q_position)
                    && starts(&long.k_position, &short.k_position)
            })
    }
}

impl Method {
    /// The plan of every layer for a pass over `length.total` tokens, first layer first. Layers with
    /// equal plans share one.
    ///
    /// # Errors
    /// When the windows do not fit the model's layers, or the frequency method refuses its options.
    pub fn plan(&self, model: &Model, length: Length) -> Result<Vec<Arc<LayerPlan>>, PlanError> {
        let windows = self.window.layers.sizes(model.layers)?;
        if self.sinks > 0 && windows.iter().all(Option::is_none) {
            return Err(PlanError::SinksWithoutWindow { sinks: self.sinks });
        }
        if self.window.alpha == Alpha::PerLayer && windows.iter().all(Option::is_none) {
            return Err(PlanError::AlphaWithoutWindow);
        }
        let mut plans: Vec<Arc<LayerPlan>> = Vec::with_capacity(model.layers);
        for window in windows {
            let plan = self.layer_plan(&model.rope, length, window)?;
            let known = plans.iter().find(|known| ***known == plan).cloned();
            plans.push(known.unwrap_or_else(|| Arc::new(plan)));
        }
        Ok(plans)
    }

    fn layer_plan(
        &self,
        rope: &Rope,
        length: Length,
        window: Option<usize>,
    ) -> Result<LayerPlan, PlanError> {
        let seen = match (self.window.alpha, window) {
            (Alpha::PerLayer, Some(window)) => Length {
                total: length.total.min(window),
                prefill: length.prefill.min(window),
            },
            _ => length,
        };
        let spectrum = self.rope.spectrum(rope, seen)?;
        let position: Vec<f64> = (0..length.total).map(|i| i as f64).collect();
        let band = |keys| Band {
            keys,
            q_position: position.clone(),
            k_position: position.clone(),
            spectrum: spectrum.clone(),
        };

        let queries = 0..length.total as u32;
        let first_in_window = |i: u32| match window {
            Some(window) => (i as usize + 1).saturating_sub(window) as u32,
            None => 0,
        };
        let mut bands = vec![band(
            queries.clone().map(|i| first_in_window(i)..i + 1).collect(),
        )];
        // The sinks keep their true positions and are a band of their own, so that a kernel walks
        // over two short ranges of keys and never over what lies between them.
        if self.sinks > 0 && window.is_some() {
            let sinks = self.sinks.min(length.total) as u32;
            bands.push(band(
                queries.map(|i| 0..sinks.min(first_in_window(i))).collect(),
            ));
        }

        let visible =
            |i: usize| -> usize { bands.iter().map(|band| band.keys[i].len()).sum::<usize>() };
        let log_trained = (rope.trained as f64).ln();
        let query_scale = (0..length.total)
            .map(|i| match self.logn {
                LogN::Off => 1.0,
                LogN::On(LogNLength::Position) => ((i + 1) as f64).ln() / log_trained,
                LogN::On(LogNLength::Visible) => (visible(i) as f64).ln() / log_trained,
            })
            .map(|scale| scale.max(1.0))
            .collect();
        Ok(LayerPlan { bands, query_scale })
    }
}

/// Why a method cannot be planned for a model.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The windows cover another number of layers than the model has.
    #[error(
        "window.layers covers {given} layers, the model has {layers}; give one size for all, a list of \
         {layers} sizes, or runs that add up to {layers}"
    )]
    WindowLayers {
        /// Layers that the config's windows cover.
        given: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Sinks keep tokens visible outside a window, and no layer has one.
    #[error(
        "sinks = {sinks}, but no layer has a window, so all tokens are visible; give a window too, or remove sinks"
    )]
    SinksWithoutWindow {
        /// The config's sinks.
        sinks: usize,
    },
    /// Per-layer frequencies follow the windows, and no layer has one.
    #[error(
        "window.alpha = \"per_layer\", but no layer has a window; give windows, or remove alpha"
    )]
    AlphaWithoutWindow,
    /// The frequency method refused.
    #[error(transparent)]
    Rope(#[from] RopeError),
}
