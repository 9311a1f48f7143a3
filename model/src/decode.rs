//! Reads a sequence piece by piece, with a cache of keys and values.

use std::ops::Range;

use burn::tensor::Tensor;
use longspan_attention::{Kept, Method, PlanError, Plans};
use longspan_kernels::{CacheType, KeyTables, LayerCache};
use longspan_rope::Length;

use crate::sample::largest;
use crate::{Architecture, ModelError, Transformer};

/// Tokens that go through the model together; bounds the memory of a long prompt besides the cache.
const CHUNK: usize = 2048;

/// What to do with tokens that were read under other frequencies, positions or scales than the
/// method gives them at the new length. Dynamic NTK changes them each time the length passes a
/// power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// Read them again: the result equals that of one pass over all tokens. Under a method whose
    /// frequencies change with every token, everything is read again at every token.
    #[default]
    Recompute,
    /// Rotate the cached keys by the new frequencies. Above the first layer, keys and values stay
    /// those of the shorter sequence.
    Rotate,
}

/// Options of a [`Decoder`].
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// Type of the cache.
    pub cache: CacheType,
    /// What to do with tokens that the method treats differently at the new length.
    pub stale: Stale,
    /// Largest number of tokens of a sequence.
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
    /// The length under which `ids` were read.
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
    /// The device does not support a cache of this type.
    #[error("a cache in {cache} on this device: {reason}")]
    Cache {
        /// Type of the cache.
        cache: &'static str,
        /// What is missing.
        reason: longspan_kernels::KernelError,
    },
    /// The cache is full.
    #[error("{tokens} tokens, and the cache has room for {capacity}")]
    Full {
        /// Tokens of the sequence, including those that were to be read.
        tokens: usize,
        /// [`DecodeOptions::capacity`].
        capacity: usize,
    },
}

impl<'a> Decoder<'a> {
    /// An empty sequence. Allocates the cache for the whole capacity.
    ///
    /// # Errors
    /// The method does not fit the model, or the device does not support the type of the cache.
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
        let layer = |kept: Kept| LayerCache::new(size, room, kept, options.cache, &device);
        Ok(Decoder {
            model,
            method: method.clone(),
            options,
            layers: kept.into_iter().map(layer).collect(),
            tables: KeyTables::new(options.capacity, &device),
            ids: Vec::new(),
            length: Length::whole(0),
        })
    }

    /// Bytes of the cache of all layers.
    ///
    /// # Errors
    /// The method does not fit the model.
    pub fn cache_bytes(
        config: &Architecture,
        method: &Method,
        options: DecodeOptions,
    ) -> Result<u64, PlanError> {
        let row = 2 * config.heads * options.cache.row_bytes(config.head_dim);
        let capacity = options.capacity;
        let room = |kept: Kept| LayerCache::room(capacity, CHUNK.min(capacity), kept);
        let layers = method.kept(&config.geometry())?.into_iter();
        // The capacity comes from the user and may be huge.
        let bytes = layers.map(|kept| (room(kept) as u64).saturating_mul(row as u64));
        Ok(bytes.fold(0, u64::saturating_add))
    }

    /// The tokens read so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Reads a prompt from the start of the sequence, as its first call. Reuses the cache of a
    /// common prefix with what was read before, where a window has not dropped any of it. Returns
    /// the hidden states `[n, hidden_size]` of the last tokens: at least one, at most the last
    /// chunk, since those of a long prompt would take as much memory as its cache.
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

    /// Goes back to the first `tokens`, or to the start if a window has dropped some of them.
    fn rewind(&mut self, tokens: usize) {
        if tokens < self.ids.len() {
            let whole = self.layers.iter().all(LayerCache::is_whole);
            let kept = if whole { tokens } else { 0 };
            for layer in &mut self.layers {
                layer.truncate(kept);
            }
            self.ids.truncate(kept);
        }
    }

    /// Reads further tokens; returns their hidden states `[n, hidden_size]` after the last norm.
    /// The first call and each [`prompt`](Decoder::prompt) set the prefill length of the sequence.
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

    /// Reads tokens; returns the hidden states of all of them, or of those of the last chunk.
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
            // Hidden states of tokens that were read again are not part of the result.
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

    /// True if the method treats a token differently at `length` than when it was read.
    fn is_stale(&self, token: usize, length: Length) -> Result<bool, PlanError> {
        let was = self.plan(self.length, token..token + 1)?;
        let now = self.plan(length, token..token + 1)?;
        // Either may be the longer sequence: `rewind` shortens it.
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

    /// The most likely token after the last of the hidden states `[n, hidden_size]`, the lowest id
    /// among equals; `None` if a logit is not finite.
    pub fn most_likely(&self, hidden: Tensor<2>) -> Result<Option<u32>, DecodeError> {
        Ok(largest(&self.logits(hidden)?))
    }

    /// Logits `[vocab_size]` after the last of the hidden states `[n, hidden_size]`.
    ///
    /// # Errors
    /// A kernel that did not run.
    pub fn logits(&self, hidden: Tensor<2>) -> Result<Vec<f32>, DecodeError> {
        let [n, width] = hidden.dims();
        let logits = self.model.logits(hidden.slice([n - 1..n, 0..width]));
        Ok(longspan_kernels::read(logits).map_err(ModelError::from)?)
    }
}
