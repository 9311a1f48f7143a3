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

/// What one layer's attention does with a sequence, or with some consecutive queries of one.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// Disjoint bands of keys.
    pub bands: Vec<Band>,
    /// Factor on each query after rotation (LogN; 1 where there is none).
    pub query_scale: Vec<f64>,
}

impl LayerPlan {
    /// The plan of `copies` sequences that lie side by side in one pass, each under this plan, none seeing
    /// another.
    pub fn packed(&self, copies: usize) -> LayerPlan {
        let n = self.query_scale.len() as u32;
        let shifted = |keys: &[Range<u32>]| {
            let copies = (0..copies as u32).map(|copy| copy * n);
            copies
                .flat_map(|shift| keys.iter().map(move |k| k.start + shift..k.end + shift))
                .collect()
        };
        let bands = self.bands.iter().map(|band| Band {
            keys: shifted(&band.keys),
            q_position: band.q_position.repeat(copies),
            k_position: band.k_position.repeat(copies),
            spectrum: band.spectrum.clone(),
        });
        LayerPlan {
            bands: bands.collect(),
            query_scale: self.query_scale.repeat(copies),
        }
    }

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
        self.plan_queries(model, length, 0..length.total)
    }

    /// [`Method::plan`] for the queries at `queries` alone: key ranges, query positions and scales have one
    /// entry for each of them, key positions one for each of `length.total` keys.
    ///
    /// # Errors
    /// As [`Method::plan`].
    pub fn plan_queries(
        &self,
        model: &Model,
        length: Length,
        queries: Range<usize>,
    ) -> Result<Vec<Arc<LayerPlan>>, PlanError> {
        let windows = self.window.layers.sizes(model.layers)?;
        if self.sinks > 0 && windows.iter().all(Option::is_none) {
            return Err(PlanError::SinksWithoutWindow { sinks: self.sinks });
        }
        if self.window.alpha == Alpha::PerLayer && windows.iter().all(Option::is_none) {
            return Err(PlanError::AlphaWithoutWindow);
        }
        let mut plans: Vec<Arc<LayerPlan>> = Vec::with_capacity(model.layers);
        for window in windows {
            let plan = self.layer_plan(&model.rope, length, queries.clone(), window)?;
            let known = plans.iter().find(|known| ***known == plan).cloned();
            plans.push(known.unwrap_or_else(|| Arc::new(plan)));
        }
        Ok(plans)
    }

    /// For each layer, how many tokens up to a query the method lets it see beside the first [`sinks`](Method::sinks);
    /// `None` where it sees all.
    ///
    /// # Errors
    /// When the windows do not fit the model's layers.
    pub fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>, PlanError> {
        self.window.layers.sizes(layers)
    }

    fn layer_plan(
        &self,
        rope: &Rope,
        length: Length,
        queries: Range<usize>,
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
        let positions = |tokens: Range<usize>| tokens.map(|i| i as f64).collect();
        let band = |keys| Band {
            keys,
            q_position: positions(queries.clone()),
            k_position: positions(0..length.total),
            spectrum: spectrum.clone(),
        };

        let rows = queries.start as u32..queries.end as u32;
        let first_in_window = |i: u32| match window {
            Some(window) => (i as usize + 1).saturating_sub(window) as u32,
            None => 0,
        };
        let mut bands = vec![band(
            rows.clone().map(|i| first_in_window(i)..i + 1).collect(),
        )];
        // The sinks keep their true positions and are a band of their own, so that a kernel walks
        // over two short ranges of keys and never over what lies between them.
        if self.sinks > 0 && window.is_some() {
            let sinks = self.sinks.min(length.total) as u32;
            bands.push(band(
                rows.map(|i| 0..sinks.min(first_in_window(i))).collect(),
            ));
        }

        let visible =
            |row: usize| -> usize { bands.iter().map(|band| band.keys[row].len()).sum::<usize>() };
        let log_trained = (rope.trained as f64).ln();
        let query_scale = queries
            .clone()
            .enumerate()
            .map(|(row, i)| match self.logn {
                LogN::Off => 1.0,
                LogN::On(LogNLength::Position) => ((i + 1) as f64).ln() / log_trained,
                LogN::On(LogNLength::Visible) => (visible(row) as f64).ln() / log_trained,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plans(method: serde_json::Value, trained: usize, n: usize) -> Vec<Arc<LayerPlan>> {
        let rope = Rope {
            dim: 8,
            base: 1e4,
            trained,
        };
        let method: Method = serde_json::from_value(method).unwrap();
        let length = Length {
            total: n,
            prefill: n,
        };
        method.plan(&Model { rope, layers: 2 }, length).unwrap()
    }

    /// Published values of `ln i / ln L`.
    #[test]
    fn logn_has_its_golden_values() {
        let logn = json!({"name": "logn", "logn": true});
        for (trained, position, expected) in [
            (2048, 4096, 1.09091),
            (2048, 8192, 1.18182),
            (2048, 16384, 1.27273),
            (2048, 32768, 1.36364),
            (8192, 16384, 1.07692),
            (8192, 32768, 1.15385),
        ] {
            let plan = &plans(logn.clone(), trained, position)[0];
            let scale = plan.query_scale[position - 1];
            assert!(
                (scale - expected).abs() < 5e-6,
                "{trained} {position}: {scale}"
            );
            assert_eq!(plan.query_scale[..trained], vec![1.0; trained]);
            assert!(plan.query_scale[trained] > 1.0);
        }
    }

    #[test]
    fn windows_and_sinks_are_disjoint_ranges() {
        let method = json!({"name": "w", "window": [3, "full"], "sinks": 2,
            "logn": {"length": "visible"}});
        let plans = plans(method, 4, 7);
        let [near, sinks] = plans[0].bands.as_slice() else {
            panic!("two bands")
        };
        assert_eq!(near.keys, [0..1, 0..2, 0..3, 1..4, 2..5, 3..6, 4..7]);
        assert_eq!(sinks.keys, [0..0, 0..0, 0..0, 0..1, 0..2, 0..2, 0..2]);
        // Five tokens are seen from the fifth query on, more than the four that were trained.
        let five = 5f64.ln() / 4f64.ln();
        assert_eq!(plans[0].query_scale, [1.0, 1.0, 1.0, 1.0, five, five, five]);
        assert_eq!(plans[1].bands.len(), 1);
        assert_eq!(plans[1].bands[0].keys[6], 0..7);
    }

    /// Every row of a plan can be had alone.
    #[test]
    fn queries_can_be_planned_apart() {
        let rope = Rope {
            dim: 8,
            base: 1e4,
            trained: 6,
        };
        let model = Model { rope, layers: 2 };
        let length = Length {
            total: 20,
            prefill: 20,
        };
        let method = json!({"name": "all", "rope": {"kind": "dynamic_ntk"}, "window": [5, "full"], "sinks": 2,
            "logn": {"length": "visible"}});
        let method: Method = serde_json::from_value(method).unwrap();
        let whole = method.plan(&model, length).unwrap();
        for queries in [0..1, 3..9, 19..20] {
            let part = method
                .plan_queries(&model, length, queries.clone())
                .unwrap();
            for (whole, part) in whole.iter().zip(&part) {
                assert_eq!(part.query_scale, whole.query_scale[queries.clone()]);
                for (whole, part) in whole.bands.iter().zip(&part.bands) {
                    assert_eq!(part.keys, whole.keys[queries.clone()]);
                    assert_eq!(part.q_position, whole.q_position[queries.clone()]);
                    assert_eq!(part.k_position, whole.k_position);
                    assert_eq!(part.spectrum, whole.spectrum);
                }
            }
        }
    }

    #[test]
    fn only_plans_that_agree_are_prefixes() {
        let prefix = |method: serde_json::Value, short, long| {
            let (a, b) = (plans(method.clone(), 8, short), plans(method, 8, long));
            a.iter().zip(&b).all(|(a, b)| a.is_prefix_of(b))
        };
        let fixed = json!({"name": "w", "window": 5, "sinks": 1, "logn": true});
        assert!(prefix(fixed.clone(), 6, 30) && !prefix(fixed, 30, 6));
        let dynamic = json!({"name": "d", "rope": {"kind": "dynamic_ntk"}});
        assert!(prefix(dynamic.clone(), 4, 8) && prefix(dynamic.clone(), 9, 16));
        assert!(!prefix(dynamic, 8, 9));
        // With alpha from the window, nothing depends on the length once the window is full.
        let layered = json!({"name": "l", "rope": {"kind": "dynamic_ntk"},
            "window": {"layers": 12, "alpha": "per_layer"}});
        assert!(prefix(layered.clone(), 12, 30) && !prefix(layered, 8, 30));
    }
}
