//! Text from a model, under any method: prompts, sampling, stop words.

mod defaults;
mod stream;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use bytesize::ByteSize;
use longspan_attention::Method;
use longspan_data::Tokenizer;
use longspan_model::{CacheType, DecodeOptions, Decoder, Sampler, Stale, Transformer, WeightType};
use longspan_rope::Length;

pub use defaults::Defaults;
pub use stream::Stream;

use crate::{measure, memory, open};

/// Tokens of the plan by which a method is checked before the weights are read.
const CHECKED: usize = 4096;

/// Options of generation; those that are `None` come from the model's `generation_config.json`.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Type of the cache of keys and values.
    pub cache: CacheType,
    /// Treatment of cached tokens whose frequencies the method changes.
    pub stale: Stale,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Always the most probable token.
    pub greedy: bool,
    /// Divides the logits before a token is drawn.
    pub temperature: Option<f64>,
    /// Draw from this many of the most probable tokens; 0: all.
    pub top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Makes tokens that have occurred less probable; 1: no change.
    pub repetition_penalty: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
    /// Texts that end the generation.
    pub stops: Vec<String>,
}

/// A model to open, its vocabulary, and how its weights are held.
pub struct ModelSource<'a> {
    /// Hugging Face folder, or a built-in model.
    pub model: &'a str,
    /// Vocabulary file; `None`: the one in the folder.
    pub tokenizer: Option<&'a Path>,
    /// Type of the weights; `None`: as stored.
    pub dtype: Option<WeightType>,
    /// Type of the activations.
    pub activations: WeightType,
    /// Where to compute.
    pub device: Device,
}

/// Keys and values need more memory than is free.
#[derive(Debug, thiserror::Error)]
#[error(
    "keys and values of {tokens} tokens take {needed} in {cache}, {limit} is free; give fewer tokens \
     or a narrower type of cache"
)]
pub struct CacheTooLarge {
    tokens: usize,
    cache: &'static str,
    needed: ByteSize,
    limit: ByteSize,
}

/// A decoder whose cache fits in the memory that is free.
///
/// # Errors
/// A cache that does not fit, or that the device cannot hold; a method that does not fit the model.
pub fn decoder<'a>(
    model: &'a Transformer,
    method: &Method,
    options: DecodeOptions,
) -> Result<Decoder<'a>> {
    let needed = ByteSize(Decoder::cache_bytes(model.config(), method, options)?);
    let limit = memory::limit(None, &model.device());
    if needed > limit {
        let error = CacheTooLarge {
            tokens: options.capacity,
            cache: options.cache.name(),
            needed,
            limit,
        };
        return Err(error.into());
    }
    Ok(Decoder::new(model, method, options)?)
}

/// A model with its vocabulary, its method and options of generation.
pub struct Generator {
    /// The model.
    pub model: Transformer,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// The defaults of its folder.
    pub defaults: Defaults,
    /// The method.
    pub method: Method,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    sampler: Sampler,
    cache: CacheType,
    stale: Stale,
    stops: Vec<String>,
}

impl Generator {
    /// Opens the model. Everything else is checked before its weights are read.
    ///
    /// # Errors
    /// The folder, the vocabulary, the method or an option is unusable.
    pub fn open(source: &ModelSource, method: Method, options: Generation) -> Result<Self> {
        let tokenizer = open::tokenizer(source.model, source.tokenizer)?;
        let defaults = Defaults::of(source.model)?;
        ensure!(
            options.stops.iter().all(|stop| !stop.is_empty()),
            "a stop word is empty; give the text that ends an answer"
        );
        let checkpoint = open::checkpoint(source.model)?;
        let vocabulary = checkpoint.config.vocab_size;
        ensure!(
            tokenizer.vocab_size() <= vocabulary,
            "the vocabulary has {} tokens, {} has rows for {vocabulary}; give the model's own",
            tokenizer.vocab_size(),
            source.model
        );
        // Any length shows whether the method fits; a plan of the trained length may be large.
        measure::plans(
            &checkpoint.config.geometry(),
            &method,
            Length::whole(CHECKED),
        )?;
        let model = open::model(
            checkpoint,
            (source.dtype, source.activations),
            &source.device,
        )?;
        Ok(Generator {
            sampler: defaults.sampler(&options),
            max_new_tokens: options.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            model,
            tokenizer,
            defaults,
            method,
            cache: options.cache,
            stale: options.stale,
            stops: options.stops,
        })
    }

    /// A decoder for sequences of up to `capacity` tokens.
    ///
    /// # Errors
    /// As [`decoder`].
    pub fn decoder(&self, capacity: usize) -> Result<Decoder<'_>> {
        let options = DecodeOptions {
            cache: self.cache,
            stale: self.stale,
            capacity,
        };
        decoder(&self.model, &self.method, options)
    }

    /// Continues a prompt up to one of the tokens `ends`, a stop word, or the most tokens allowed;
    /// gives text to `write` as it comes, in whole characters. Returns all of the text.
    ///
    /// # Errors
    /// An empty prompt; logits that are not finite; an error of `write`.
    pub fn generate(
        &self,
        decoder: &mut Decoder,
        prompt: &[u32],
        ends: &[u32],
        mut write: impl FnMut(&str) -> Result<()>,
    ) -> Result<Generated> {
        ensure!(
            !prompt.is_empty(),
            "the prompt is empty; give some text to continue"
        );
        let mut sampler = self.sampler.clone();
        let mut stream = Stream::new(&self.stops);
        let start = Instant::now();
        let mut hidden = decoder.prompt(prompt)?;
        let (mut first, mut tokens) = (None, 0);
        while tokens < self.max_new_tokens {
            // A model may have more rows than the vocabulary has tokens.
            let logits = decoder.logits(hidden)?;
            let logits = &logits[..self.tokenizer.vocab_size()];
            ensure!(
                logits.iter().all(|x| x.is_finite()),
                "the logits after {} tokens are not finite: this method breaks at this length",
                decoder.ids().len()
            );
            let next = sampler.choose(logits, decoder.ids());
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            if ends.contains(&next) {
                break;
            }
            tokens += 1;
            write(stream.push(&self.tokenizer.decode_bytes(&[next])?))?;
            if stream.stopped() || tokens == self.max_new_tokens {
                break;
            }
            hidden = decoder.feed(&[next])?;
        }
        write(stream.finish())?;
        let first = first.unwrap_or_default();
        Ok(Generated {
            text: stream.text().to_owned(),
            tokens,
            prompt_seconds: first,
            seconds: start.elapsed().as_secs_f64() - first,
        })
    }
}

/// A generated text, and its cost.
pub struct Generated {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Seconds until the first token was chosen.
    prompt_seconds: f64,
    /// Seconds after that.
    seconds: f64,
}

impl Generated {
    /// Tokens and speed in one line, for a prompt of `prompt` tokens.
    pub fn summary(&self, prompt: usize) -> String {
        let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(f64::EPSILON);
        format!(
            "{prompt} tokens read ({:.0} tokens/s), {} written ({:.1} tokens/s)",
            rate(prompt, self.prompt_seconds),
            self.tokens,
            rate(self.tokens.saturating_sub(1), self.seconds)
        )
    }
}
