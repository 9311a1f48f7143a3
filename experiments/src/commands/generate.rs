//! `longspan generate`.

use std::path::PathBuf;

use anyhow::Result;
use longspan::config;
use longspan::generation::{Generation, Generator, ModelSource};
use longspan_model::{CacheType, Stale};

use super::args::{MethodArgs, ModelArgs};
use super::{print, tokenize};

/// Options of `generate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Read special tokens such as <|im_start|> in the prompt as such
    #[arg(long)]
    special: bool,
    /// Read the prompt from a file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// The prompt [default: --file, or standard input]
    prompt: Option<String>,
}

/// How text is generated.
#[derive(clap::Args)]
pub struct GenerationArgs {
    /// Type of the cache of keys and values: f32, bf16, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv: CacheType,
    /// When the method changes the frequencies of tokens already read: read them again (as without
    /// a cache), or only rotate their keys
    #[arg(long, value_enum, default_value_t = OnChange::Recompute)]
    on_change: OnChange,
    /// Most tokens to generate [default: generation_config.json, or 512]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: Option<u32>,
    /// Always the most probable token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// Divides the logits before a token is drawn [default: generation_config.json, or 1]
    #[arg(long, value_name = "T", value_parser = positive)]
    temperature: Option<f64>,
    /// Draw from this many of the most probable tokens; 0 for all
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
    /// Stop before this text; may be given several times
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

impl GenerationArgs {
    fn options(&self) -> Generation {
        Generation {
            cache: self.kv,
            stale: match self.on_change {
                OnChange::Recompute => Stale::Recompute,
                OnChange::Rotate => Stale::Rotate,
            },
            max_new_tokens: self.max_new_tokens.map(|n| n as usize),
            greedy: self.greedy,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stops: self.stop.clone(),
        }
    }
}

/// Opens the model of a command.
pub fn open(
    model: &ModelArgs,
    method: &MethodArgs,
    generation: &GenerationArgs,
) -> Result<Generator> {
    let source = ModelSource {
        model: &model.model,
        tokenizer: model.tokenizer.as_deref(),
        dtype: model.held.dtype,
        activations: model.held.activations,
        device: model.held.device.device.open()?,
    };
    let method = config::method(&method.set)?;
    Generator::open(&source, method, generation.options())
}

/// Prints the continuation of a prompt.
pub fn generate(args: Args) -> Result<()> {
    let generator = open(&args.model, &args.method, &args.generation)?;
    let text = tokenize::input(args.prompt.as_deref(), args.file.as_deref())?;
    let prompt = if args.special {
        generator.tokenizer.encode_with_special(&text)
    } else {
        generator.tokenizer.encode(&text)
    };
    let capacity = prompt.len().saturating_add(generator.max_new_tokens);
    let mut decoder = generator.decoder(capacity)?;
    let ends = generator.defaults.ends(&generator.tokenizer);
    let generated = generator.generate(&mut decoder, &prompt, &ends, print)?;
    print("\n")?;
    log::info!("{}", generated.summary(prompt.len()));
    Ok(())
}
