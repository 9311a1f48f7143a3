//! A model under a method: passes of one length share a plan, and short windows go through the
//! model together.

use std::ops::Range;

use anyhow::Result;
use burn::tensor::Device;
use longspan_attention::Method;
use longspan_model::{
    CacheType, DecodeOptions, Decoder, PassPlan, Stale, Transformer, sequences_together,
};
use longspan_rope::Length;

/// The properties of a model on which its numbers depend; part of the keys of records.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Digest of configuration and weights.
    pub checkpoint: String,
    /// Types in which weights and activations are held.
    pub dtype: String,
    /// Kind of device: `cpu`, or a GPU runtime.
    pub device: String,
    /// Trained length, tokens.
    pub trained: usize,
}

/// A language model as measurements use it. [`Transformer`] implements it; so can a mock.
pub trait LanguageModel {
    /// A method prepared for passes of one length.
    type Plan;

    /// The model's part of the keys of records.
    fn identity(&self) -> Identity;

    /// The device that computes.
    fn device(&self) -> Device;

    /// Prepares a method for passes of `length.total` tokens.
    ///
    /// # Errors
    /// The method does not fit the model.
    fn plan(&self, method: &Method, length: Length) -> Result<Self::Plan>;

    /// Negative log likelihood, nats, of tokens `1..n` of each of the sequences concatenated in
    /// `ids`, all of the plan's length `n`.
    ///
    /// # Errors
    /// A token outside the vocabulary; a pass that fails.
    fn nll(&self, ids: &[u32], plan: &Self::Plan) -> Result<Vec<f32>>;

    /// The most likely token after each position in `rows`; `None` where a logit is not finite. Of
    /// equal logits the first counts.
    ///
    /// # Errors
    /// As [`nll`](LanguageModel::nll).
    fn most_likely(
        &self,
        ids: &[u32],
        plan: &Self::Plan,
        rows: Range<usize>,
    ) -> Result<Vec<Option<u32>>>;

    /// Greedy generation: up to `most` tokens after a prompt, until `done` returns true for the
    /// tokens so far or a logit is not finite. Returns the tokens, and the number of tokens fed.
    ///
    /// # Errors
    /// As [`nll`](LanguageModel::nll); a method that does not fit the model.
    fn generate(
        &self,
        method: &Method,
        prompt: &[u32],
        most: usize,
        done: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<(Vec<u32>, usize)>;
}

impl LanguageModel for Transformer {
    type Plan = PassPlan;

    fn identity(&self) -> Identity {
        Identity {
            checkpoint: self.digest().to_owned(),
            dtype: self.types(),
            device: self.device_kind().to_owned(),
            trained: self.config().trained,
        }
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn plan(&self, method: &Method, length: Length) -> Result<PassPlan> {
        Ok(self.plan(method, length)?)
    }

    fn nll(&self, ids: &[u32], plan: &PassPlan) -> Result<Vec<f32>> {
        Ok(self.nll(ids, plan)?)
    }

    fn most_likely(
        &self,
        ids: &[u32],
        plan: &PassPlan,
        rows: Range<usize>,
    ) -> Result<Vec<Option<u32>>> {
        Ok(self.most_likely(ids, plan, rows)?)
    }

    fn generate(
        &self,
        method: &Method,
        prompt: &[u32],
        most: usize,
        done: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<(Vec<u32>, usize)> {
        let options = exact_cache(prompt.len() + most);
        let mut decoder = Decoder::new(self, method, options)?;
        let mut hidden = decoder.prompt(prompt)?;
        let mut written = Vec::new();
        while let Some(next) = decoder.most_likely(hidden)? {
            written.push(next);
            if written.len() == most || done(&written) {
                break;
            }
            hidden = decoder.feed(&[next])?;
        }
        Ok((written, decoder.ids().len()))
    }
}

/// Options of a cache that gives the numbers of a pass without a cache: in f32, and recomputed
/// where the frequencies change with the length.
pub fn exact_cache(capacity: usize) -> DecodeOptions {
    DecodeOptions {
        cache: CacheType::F32,
        stale: Stale::Recompute,
        capacity,
    }
}

/// A model under a method, with the plan of the last pass.
pub struct Session<'a, M: LanguageModel> {
    model: &'a M,
    method: &'a Method,
    plan: Option<(Length, M::Plan)>,
    /// Tokens fed so far.
    pub fed: usize,
}

impl<'a, M: LanguageModel> Session<'a, M> {
    /// A session without a plan yet.
    pub fn new(model: &'a M, method: &'a Method) -> Self {
        Session {
            model,
            method,
            plan: None,
            fed: 0,
        }
    }

    /// The model.
    pub fn model(&self) -> &'a M {
        self.model
    }

    /// The method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The plan for a length; the last one is reused if it has the same length.
    fn plan(&mut self, length: Length) -> Result<&M::Plan> {
        let plan = match self.plan.take() {
            Some((planned, plan)) if planned == length => plan,
            _ => self.model.plan(self.method, length)?,
        };
        Ok(&self.plan.insert((length, plan)).1)
    }

    /// Plans passes of a length, so that the first of them takes no longer than the others.
    ///
    /// # Errors
    /// The method does not fit the model.
    pub fn prepare(&mut self, length: Length) -> Result<()> {
        self.plan(length)?;
        Ok(())
    }

    /// Losses of positions `1..n` of windows of `n = length.total` tokens, nats; empty for `n`
    /// below 2. Calls `advance` after each call of the model with its number of windows.
    ///
    /// # Errors
    /// A token outside the vocabulary; a method that does not fit; a pass that fails.
    pub fn losses(
        &mut self,
        windows: &[&[u32]],
        length: Length,
        mut advance: impl FnMut(usize),
    ) -> Result<Vec<Vec<f32>>> {
        let n = length.total;
        let mut losses = Vec::with_capacity(windows.len());
        if n < 2 {
            return Ok(vec![Vec::new(); windows.len()]);
        }
        for together in windows.chunks(sequences_together(n)) {
            let ids = together.concat();
            let model = self.model;
            let nll = model.nll(&ids, self.plan(length)?)?;
            losses.extend(nll.chunks(n - 1).map(<[f32]>::to_vec));
            self.fed += ids.len();
            advance(together.len());
        }
        Ok(losses)
    }

    /// [`LanguageModel::most_likely`] of a pass over `ids`, with the first `prefill` as the first
    /// forward call.
    ///
    /// # Errors
    /// As [`losses`](Session::losses).
    pub fn most_likely(
        &mut self,
        ids: &[u32],
        prefill: usize,
        rows: Range<usize>,
    ) -> Result<Vec<Option<u32>>> {
        let length = Length {
            total: ids.len(),
            prefill,
        };
        let model = self.model;
        let tokens = model.most_likely(ids, self.plan(length)?, rows)?;
        self.fed += ids.len();
        Ok(tokens)
    }

    /// [`LanguageModel::generate`].
    ///
    /// # Errors
    /// As [`losses`](Session::losses).
    pub fn generate(
        &mut self,
        prompt: &[u32],
        most: usize,
        done: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<Vec<u32>> {
        let (written, fed) = self.model.generate(self.method, prompt, most, done)?;
        self.fed += fed;
        Ok(written)
    }
}
