//! `longspan generate`: text from a model, under any method.

mod defaults;
mod stream;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytesize::ByteSize;
use longspan_attention::Method;
use longspan_data::Tokenizer;
use longspan_model::{CacheType, DecodeOptions, Decoder, Transformer, Sampler, Stale, WeightType};
use longspan_rope::Length;

pub use defaults::Defaults;
pub use stream::Stream;

use crate::device::DeviceName;
use crate::{cells, config, memory, open, tokenize};

/// Tokens of the plan by which a method is checked before the weights are read.
const CHECKED: usize = 4096;

/// Options of `generate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    speaker: SpeakerArgs,
    /// Read special tokens such as <|im_start|> in the prompt as such
    #[arg(long)]
    special: bool,
    /// Read the prompt from a file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// The prompt; without it and without --file, standard input
    prompt: Option<String>,
}

/// Options of all commands that generate.
#[derive(clap::Args)]
pub struct SpeakerArgs {
    /// Hugging Face folder, or builtin:tiny
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// Key of the method, as in a [[method]] table; without any, plain RoPE
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Type in which weights are held [default: as stored]
    #[arg(long)]
    dtype: Option<WeightType>,
    /// Type of the cache of keys and values: f32, bf16, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv: CacheType,
    /// When the method changes the frequencies of what was read, read it again (as without a cache), or
    /// only rotate its keys anew
    #[arg(long, value_enum, default_value_t = OnChange::Recompute)]
    on_change: OnChange,
    /// Type of the activations, on a GPU: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    activations: WeightType,
    /// Where to compute: cpu, cuda, wgpu, metal or rocm, with :1 and so on for another one than the first;
    /// see `longspan devices`
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// Vocabulary file [default: the one in the model's folder]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Most tokens to generate [default: generation_config.json, or 512]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: Option<u32>,
    /// Always the most probable token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// Divides the logits before a token is drawn [default: generation_config.json, or 1]
    #[arg(long, value_name = "T", value_parser = positive)]
    temperature: Option<f64>,
    /// Draw from so many of the most probable tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this probability
    #[arg(long, value_name = "P", value_parser = probability)]
    top_p: Option<f64>,
    /// Makes tokens that have occurred less probable; 1 for no change
    #[arg(long, value_name = "X", value_parser = positive)]
    repetition_penalty: Option<f64>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End where this text comes; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// [`Stale`] on the command line.
#[derive(Clone, Copy, clap::ValueEnum)]
enum OnChange {
    Recompute,
    Rotate,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x > 0.0 => Ok(x),
        _ => Err("a number above 0 is expected".to_owned()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("a number above 0, up to 1, is expected".to_owned()),
    }
}

/// A decoder whose cache fits in the memory that is free.
pub fn decoder<'a>(
    model: &'a Transformer,
    method: &Method,
    options: DecodeOptions,
) -> Result<Decoder<'a>> {
    let needed = ByteSize(Decoder::cache_bytes(model.config(), method, options)?);
    let limit = memory::limit(None, &model.device());
    ensure!(
        needed <= limit,
        "keys and values of {} tokens take {needed} in {}, {limit} is free; give fewer tokens \
         (--max-new-tokens; --max-window-size of chat; --tokens of profile) or a narrower type (--kv)",
        options.capacity,
        options.cache.name()
    );
    Ok(Decoder::new(model, method, options)?)
}

/// A model with all that decides what it says.
pub struct Speaker {
    pub model: Transformer,
    pub tokenizer: Tokenizer,
    pub defaults: Defaults,
    pub method: Method,
    pub max_new_tokens: usize,
    sampler: Sampler,
    cache: CacheType,
    stale: Stale,
    stops: Vec<String>,
}

impl Speaker {
    /// Opens the model and checks everything before its weights are read.
    pub fn open(args: &SpeakerArgs) -> Result<Self> {
        let device = args.device.open()?;
        let tokenizer = open::tokenizer(&args.model, args.tokenizer.as_deref())?;
        let defaults = Defaults::of(&args.model)?;
        let method = config::method(&args.set)?;
        ensure!(
            args.stop.iter().all(|stop| !stop.is_empty()),
            "--stop is empty; give the text that ends an answer"
        );
        let checkpoint = open::checkpoint(&args.model)?;
        let vocabulary = checkpoint.config.vocab_size;
        ensure!(
            tokenizer.vocab_size() <= vocabulary,
            "the vocabulary has {} tokens, {} has rows for {vocabulary}; give the model's own with --tokenizer",
            tokenizer.vocab_size(),
            args.model
        );
        // Any length shows what does not fit; a plan of the trained one may be large.
        let some = Length {
            total: CHECKED,
            prefill: CHECKED,
        };
        cells::plans(&checkpoint.config.geometry(), &method, some)?;
        let model = open::model(checkpoint, (args.dtype, args.activations), &device)?;
        Ok(Speaker {
            sampler: defaults.sampler(args),
            max_new_tokens: (args.max_new_tokens.map(|n| n as usize))
                .unwrap_or(defaults.max_new_tokens),
            model,
            tokenizer,
            defaults,
            method,
            cache: args.kv,
            stale: match args.on_change {
                OnChange::Recompute => Stale::Recompute,
                OnChange::Rotate => Stale::Rotate,
            },
            stops: args.stop.clone(),
        })
    }

    /// A decoder for so many tokens.
    pub fn decoder(&self, capacity: usize) -> Result<Decoder<'_>> {
        let options = DecodeOptions {
            cache: self.cache,
            stale: self.stale,
            capacity,
        };
        decoder(&self.model, &self.method, options)
    }

    /// Goes on after a prompt, up to one of the tokens `ends`, a stop word, or as many tokens as are allowed; gives
    /// text to `write` as it comes, never half a character. Returns all of the text.
    pub fn speak(
        &self,
        decoder: &mut Decoder,
        prompt: &[u32],
        ends: &[u32],
        mut write: impl FnMut(&str) -> Result<()>,
    ) -> Result<Spoken> {
        ensure!(
            !prompt.is_empty(),
            "the prompt is empty; give some text to go on from"
        );
        let mut sampler = self.sampler.clone();
        let mut stream = Stream::new(&self.stops);
        let start = Instant::now();
        let mut hidden = decoder.prompt(prompt)?;
        let (mut first, mut tokens) = (None, 0);
        while tokens < self.max_new_tokens {
            // A model may have more rows than the vocabulary has tokens.
            let logits = decoder.logits(hidden);
            let logits = &logits[..self.tokenizer.vocab_size()];
            ensure!(
                logits.iter().all(|x| x.is_finite()),
                "the logits after {} tokens are not finite; this method does not hold at this length",
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
        Ok(Spoken {
            text: stream.text().to_owned(),
            tokens,
            prompt_seconds: first,
            seconds: start.elapsed().as_secs_f64() - first,
        })
    }
}

/// What was said.
pub struct Spoken {
    pub text: String,
    pub tokens: usize,
    /// Until the first token was chosen.
    prompt_seconds: f64,
    /// From then on.
    seconds: f64,
}

impl Spoken {
    /// A line for standard error.
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

/// Writes the prompt's continuation on standard output.
pub fn generate(args: &Args) -> Result<()> {
    let speaker = Speaker::open(&args.speaker)?;
    let text = tokenize::input(args.prompt.as_deref(), args.file.as_deref())?;
    let prompt = match args.special {
        true => speaker.tokenizer.encode_with_special(&text),
        false => speaker.tokenizer.encode(&text),
    };
    let mut decoder = speaker.decoder(prompt.len().saturating_add(speaker.max_new_tokens))?;
    let ends = speaker.defaults.ends(&speaker.tokenizer);
    let spoken = speaker.speak(&mut decoder, &prompt, &ends, crate::print)?;
    crate::print("\n")?;
    crate::tell(spoken.summary(prompt.len()));
    Ok(())
}
