//! The plan of a layer: bands of keys, their rotary positions, a factor on each query.

use std::ops::{Index, Range};
use std::sync::Arc;

use longspan_rope::Spectrum;

/// A set of keys that a query attends to under one choice of positions and frequencies.
///
/// The bands of a plan are disjoint for each query; their outputs are merged by log-sum-exp, which
/// equals one softmax over all their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// The keys of each query: one half-open range of key indices a query; may be empty.
    /// Neither end ever decreases from one query to the next.
    pub keys: Vec<Range<u32>>,
    /// Rotary position of each query.
    pub q_position: Vec<f64>,
    /// Rotary position of each key.
    pub k_position: Vec<f64>,
    /// Frequencies by which the positions rotate q and k, and the factor on their cos and sin.
    pub spectrum: Spectrum,
}

/// The attention of one layer over a sequence, or of some consecutive queries of one.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPlan {
    /// Disjoint bands of keys.
    pub bands: Vec<Band>,
    /// Factor on each query after rotation (LogN; 1 where there is none).
    pub query_scale: Vec<f64>,
}

impl LayerPlan {
    /// The plan of `copies` sequences concatenated in one pass, each under this plan, none seeing
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

    /// True if the first tokens of a longer pass under `longer` get exactly what `self` gives them.
    ///
    /// When it holds in every layer, causality makes the loss of those tokens equal, so one pass
    /// over the longer sequence yields the shorter one's numbers too.
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

    /// Number of keys seen, summed over all queries.
    pub fn seen(&self) -> u64 {
        let keys = self.bands.iter().flat_map(|band| &band.keys);
        keys.map(|keys| u64::from(keys.end - keys.start)).sum()
    }
}

/// The plans of all layers of a model; equal ones are stored once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plans {
    distinct: Vec<Arc<LayerPlan>>,
    /// Index into `distinct` of each layer.
    of_layer: Vec<usize>,
}

impl Plans {
    /// Every different plan once, in the order of the first layer that has it.
    pub fn distinct(&self) -> &[Arc<LayerPlan>] {
        &self.distinct
    }

    /// For each layer the index of its plan in [`distinct`](Plans::distinct).
    pub fn of_layer(&self) -> &[usize] {
        &self.of_layer
    }

    /// The plan of each layer, first layer first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<LayerPlan>> {
        self.of_layer.iter().map(|&plan| &self.distinct[plan])
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.of_layer.len()
    }

    /// True if there are no layers.
    pub fn is_empty(&self) -> bool {
        self.of_layer.is_empty()
    }

    /// [`LayerPlan::is_prefix_of`] in every layer.
    pub fn is_prefix_of(&self, longer: &Plans) -> bool {
        let mut pairs: Vec<(usize, usize)> = (self.of_layer.iter().copied())
            .zip(longer.of_layer.iter().copied())
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        self.len() == longer.len()
            && (pairs.iter()).all(|&(a, b)| self.distinct[a].is_prefix_of(&longer.distinct[b]))
    }

    /// [`LayerPlan::packed`] in every layer.
    pub fn packed(&self, copies: usize) -> Plans {
        let distinct = self.distinct.iter();
        Plans {
            distinct: distinct.map(|plan| Arc::new(plan.packed(copies))).collect(),
            of_layer: self.of_layer.clone(),
        }
    }
}

impl Index<usize> for Plans {
    type Output = LayerPlan;

    fn index(&self, layer: usize) -> &LayerPlan {
        &self.distinct[self.of_layer[layer]]
    }
}

/// The plans of layers, first layer first.
impl FromIterator<LayerPlan> for Plans {
    fn from_iter<I: IntoIterator<Item = LayerPlan>>(layers: I) -> Self {
        let mut plans = Plans::default();
        for plan in layers {
            let known = plans.distinct.iter().position(|known| **known == plan);
            plans.of_layer.push(known.unwrap_or_else(|| {
                plans.distinct.push(Arc::new(plan));
                plans.distinct.len() - 1
            }));
        }
        plans
    }
}
