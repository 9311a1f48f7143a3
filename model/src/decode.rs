//! Reading a sequence piece by piece: keys and values of what was read are kept.

use std::ops::Range;

use burn::tensor::Tensor;
use longspan_attention::{Kept, Method, PlanError, Plans};
use longspan_kernels::{CacheType, KeyTables, LayerCache};
use longspan_rope::Length;

use crate::{ModelError, Transformer};

/// Tokens that go through the model together: bounds what a long prompt needs beside the cache.
const CHUNK: usize = 2048;

/// What to do when the method gives the tokens that were read other frequencies, positions or scales than they had, as
/// dynamic NTK does each time the length passes a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// Read them again under the new ones: the result is that of one pass over all tokens. A method whose
    /// frequencies change with every token reads everything again at every token.
    #[default]
    Recompute,
    /// Rotate their keys by the new ones and keep the rest: keys and values of the upper layers are then those of the
    /// shorter sequence.
    Rotate,
}

/// How a [`Decoder`] keeps what it reads.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Type of the cache.
    pub cache: CacheType,
    /// What to do when the method changes its mind about what was read.
    pub stale: Stale,
    /// Most tokens of a sequence.
    pub capacity: usize,
}

/// A sequence that a model reads under a method.
pub struct Decoder<'a> {
    model: &'a Transformer,
    method: Method,
    options: DecodeOptions,
    layers: Vec<LayerCache>,
    tables: KeyTables,
    ids: Vec<u32>,
    /// The length under which they were read.
    length: Length,
}

/// Why a sequence cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The method does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An id outside the vocabulary.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device does not hold such a cache.
    #[error("a cache in {cache}, on this device: {reason}; give --kv f32, or --device cpu")]
    Cache {
        /// Type of the cache.
        cache: &'static str,
        /// What is missing.
        reason: longspan_kernels::KernelError,
    },
    /// There is no room left.
    #[error("{tokens} tokens, and the cache has room for {capacity}")]
    Full {
        /// Tokens of the sequence with those that should be read.
        tokens: usize,
        /// [`DecodeOptions::capacity`].
        capacity: usize,
    },
}

impl<'a> Decoder<'a> {
    /// Nothing read yet. Memory for the whole capacity is taken now.
    ///
    /// # Errors
    /// When the method's windows do not fit the model's layers, or the device does not hold the type of the cache.
    pub fn new(
        model: &'a Transformer,
        method: &Method,
        options: DecodeOptions,
    ) -> Result<Self, DecodeError> {
        let config = model.config();
        let kept = method.kept(&config.geometry())?;
        let device = model.device();
        let supported = options.cache.supported(&device, config.head_dim);
        supported.map_err(|reason| DecodeError::Cache {
            cache: options.cache.name(),
            reason,
        })?;
        let size = [config.heads, config.head_dim];
        let room = [options.capacity, CHUNK.min(options.capacity)];
        let layer =
            |kept: Kept| LayerCache::new(size, room, kept.last, kept.first, options.cache, &device);
        Ok(Decoder {
            model,
            method: method.clone(),
            options,
            layers: kept.into_iter().map(layer).collect(),
            tables: KeyTables::new(options.capacity, &device),
            ids: Vec::new(),
            length: Length {
                total: 0,
                prefill: 0,
            },
        })
    }

    /// Bytes of the keys and values of a cache, all layers together.
    ///
    /// # Errors
    /// When the method's windows do not fit the model's layers.
    pub fn cache_bytes(
        config: &crate::Architecture,
        method: &Method,
        options: DecodeOptions,
    ) -> Result<u64, PlanError> {
        let row = 2 * config.heads * options.cache.row_bytes(config.head_dim);
        let capacity = options.capacity;
        let room =
            |kept: Kept| LayerCache::room(capacity, CHUNK.min(capacity), kept.last, kept.first);
        let layers = method.kept(&config.geometry())?.into_iter();
        // A capacity may be anything that a user asks for.
        let bytes = layers.map(|kept| (room(kept) as u64).saturating_mul(row as u64));
        Ok(bytes.fold(0, u64::saturating_add))
    }

    /// The tokens read so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Reads a prompt from the start of the sequence, as one first call: what it has in common with what was read before
    /// is kept where it can be. Returns the hidden states `[n, hidden_size]` of its last tokens: one at least, and no more than
    /// go through the model together, since all of a long prompt's would take as much as its cache.
    ///
    /// # Errors
    /// [`DecodeError`].
    ///
    /// # Panics
    /// If the prompt is empty.
    pub fn prompt(&mut self, ids: &[u32]) -> Result<Tensor<2>, DecodeError> {
        let common = ids
            .iter()
            .zip(&self.ids)
            .take_while(|(a, b)| a == b)
            .count();
        self.rewind(common.min(ids.len() - 1));
        let new = ids[self.ids.len()..].to_vec();
        self.read(&new, ids.len(), false)
    }

    /// Goes back to the first `tokens`, or to none where a window has dropped some of them.
    fn rewind(&mut self, tokens: usize) {
        if tokens < self.ids.len() {
            let whole = self.layers.iter().all(LayerCache::is_whole);
            let kept = if whole { tokens } else { 0 };
            self.layers
                .iter_mut()
                .for_each(|layer| layer.truncate(kept));
            self.ids.truncate(kept);
        }
    }

    /// Reads further tokens; returns their hidden states `[n, hidden_size]` after the last norm. The first call, and
    /// each [`prompt`](Decoder::prompt), are what methods with `freeze = "prefill"` go by.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn feed(&mut self, ids: &[u32]) -> Result<Tensor<2>, DecodeError> {
        let prefill = match self.ids.len() {
            0 => ids.len(),
            _ => self.length.prefill,
        };
        self.read(ids, prefill, true)
    }

    /// Reads tokens; returns the hidden states of all of them, or of the last ones.
    fn read(&mut self, ids: &[u32], prefill: usize, all: bool) -> Result<Tensor<2>, DecodeError> {
        let (read, total) = (self.ids.len(), self.ids.len() + ids.len());
        let capacity = self.options.capacity;
        if total > capacity {
            let tokens = total;
            return Err(DecodeError::Full { tokens, capacity });
        }
        self.model.check(ids)?;
        let length = Length { total, prefill };
        let again = read > 0
            && self.options.stale == Stale::Recompute
            && self.is_stale(read - 1, length)?;
        if again {
            self.layers.iter_mut().for_each(|layer| layer.truncate(0));
        }
        let from = if again { 0 } else { read };
        self.ids.extend_from_slice(ids);
        self.length = length;
        let mut hidden = Vec::new();
        for start in (from..total).step_by(CHUNK) {
            let tokens = start..(start + CHUNK).min(total);
            let new = self.pass(tokens.clone(), length)?;
            // Of tokens that were read again, nobody asked for the result.
            if tokens.end > read {
                if !all {
                    hidden.clear();
                }
                let [n, width] = new.dims();
                hidden.push(new.slice([read.saturating_sub(start)..n, 0..width]));
            }
        }
        Ok(Tensor::cat(hidden, 0))
    }

    /// Whether a token would be treated in another way than it was, as part of a sequence of this length.
    fn is_stale(&self, token: usize, length: Length) -> Result<bool, PlanError> {
        let was = self.plan(self.length, token..token + 1)?;
        let now = self.plan(length, token..token + 1)?;
        // The sequence may have become shorter since (`rewind`).
        Ok(!(was.is_prefix_of(&now) || now.is_prefix_of(&was)))
    }

    fn plan(&self, length: Length, tokens: Range<usize>) -> Result<Plans, PlanError> {
        let geometry = self.model.config().geometry();
        self.method.plan_queries(&geometry, length, tokens)
    }

    fn pass(&mut self, tokens: Range<usize>, length: Length) -> Result<Tensor<2>, DecodeError> {
        let plans = self.plan(length, tokens.clone())?;
        self.tables.keep(&plans);
        let (layers, tables) = (&mut self.layers, &mut self.tables);
        let attend = |layer: usize, q, k, v| {
            layers[layer].append(k, v);
            layers[layer].attend(q, &plans[layer], tables)
        };
        let n = tokens.len();
        Ok(self.model.hidden_with(&self.ids[tokens], n, attend)?)
    }

    /// Logits `[vocab_size]` after the last of some hidden states `[n, hidden_size]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Vec<f32> {
        let [n, width] = hidden.dims();
        let logits = self.model.logits(hidden.slice([n - 1..n, 0..width]));
        logits
            .into_data()
            .try_to_vec()
            .expect("logits are read back as f32")
    }
}
