//! Token ids with loss weights, from which training sequences are built.

use longspan_model::Sequence;

/// Token ids, each with the weight of its loss.
#[derive(Default)]
pub struct WeightedIds {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
}

impl WeightedIds {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Appends ids of one weight.
    pub fn push(&mut self, ids: &[u32], weight: f32) {
        self.ids.extend_from_slice(ids);
        self.weights.resize(self.ids.len(), weight);
    }

    pub fn append(&mut self, other: WeightedIds) {
        self.ids.extend(other.ids);
        self.weights.extend(other.weights);
    }

    /// The sequence of the first `len` ids.
    ///
    /// # Panics
    /// There are fewer.
    pub fn into_sequence(mut self, len: usize) -> Sequence {
        self.ids.truncate(len);
        assert_eq!(self.ids.len(), len);
        Sequence {
            ids: self.ids,
            // The first id is fed and never predicted.
            weights: self.weights[1..len].to_vec(),
        }
    }
}
