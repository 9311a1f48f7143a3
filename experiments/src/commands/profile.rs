//! `longspan profile`: speed and memory, as the tables of Qwen's model cards.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use longspan_attention::Method;
use longspan_model::{
    Architecture, CacheType, DecodeOptions, Decoder, Stale, Transformer, WeightType,
    write_random_checkpoint,
};

use longspan::{config, generation, memory, open};

use super::args::{HeldArgs, MethodArgs};
use super::{print, random_checkpoint};

/// Options of `profile`.
#[derive(clap::Args)]
pub struct Args {
    /// Hugging Face folder, or builtin:tiny
    #[arg(long, value_name = "DIR", required_unless_present = "shape")]
    model: Option<String>,
    /// Random weights of a published size instead: qwen-1.8b, qwen-7b, qwen-14b or qwen-72b
    #[arg(long, value_parser = random_checkpoint::shape, conflicts_with_all = ["model", "dtype"])]
    shape: Option<Architecture>,
    /// Type of the random weights of --shape [default: bf16]
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with = "model")]
    quant: Option<Stored>,
    #[command(flatten)]
    held: HeldArgs,
    /// Numbers of tokens to generate, one after the other from one token
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [2048, 8192],
        value_parser = clap::value_parser!(u32).range(2..))]
    tokens: Vec<u32>,
    /// Lengths of the prompts to read
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [512, 2048],
        value_parser = clap::value_parser!(u32).range(1..))]
    prefill: Vec<u32>,
    /// Type of the cache of keys and values: f32, bf16, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv: CacheType,
    #[command(flatten)]
    method: MethodArgs,
}

/// How random weights are stored.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Stored {
    F32,
    Bf16,
    F16,
    Int8,
    Int4,
}

impl Stored {
    /// Type of the tensors that are not packed, and bits of those that are.
    fn parts(self) -> (WeightType, Option<usize>) {
        match self {
            Stored::F32 => (WeightType::F32, None),
            Stored::Bf16 => (WeightType::Bf16, None),
            Stored::F16 => (WeightType::F16, None),
            Stored::Int8 => (WeightType::F16, Some(8)),
            Stored::Int4 => (WeightType::F16, Some(4)),
        }
    }
}

/// Qwen-1.8B on an A100-80G (its model card): type, tokens/s generating 2,048 and 8,192 tokens, GB
/// encoding 2,048 and generating 8,192 tokens.
const PUBLISHED: [(&str, [f64; 2], [f64; 2]); 4] = [
    ("FP32", [52.96, 47.35], [8.45, 13.06]),
    ("BF16", [54.09, 54.04], [4.23, 6.48]),
    ("Int8", [55.56, 55.62], [3.48, 5.34]),
    ("Int4", [71.07, 76.45], [2.91, 4.80]),
];

/// Time and memory at one length.
struct Measured {
    tokens: usize,
    seconds: f64,
    /// Peak of bytes in use, of the heap or of a GPU, weights included.
    peak: usize,
}

/// Prints the tables.
pub fn profile(args: Args) -> Result<()> {
    let device = args.held.device.device.open()?;
    let method = config::method(&args.method.set)?;
    // The files stay mapped after the folder is gone.
    let folder = tempfile::tempdir().context("a temporary folder for random weights")?;
    let (path, name) = match (&args.model, args.shape.clone()) {
        (Some(path), _) => (path.clone(), path.clone()),
        (None, shape) => random_weights(shape.expect("required"), args.quant, folder.path())?,
    };
    let checkpoint = open::checkpoint(&path)?;
    let types = (args.held.dtype, args.held.activations);
    let model = open::model(checkpoint, types, &device)?;
    drop(folder);
    device.memory_cleanup();
    let weights = memory::in_use(&device);
    let (read, written) = measure(&args, &model, &method)?;

    let mut text = format!(
        "# Speed and memory\n\n- model: {name} ({}, cache {})\n- method: {}\n- device: {}\n- weights: {}\n",
        model.types(),
        args.kv.name(),
        if args.method.set.is_empty() {
            "plain".to_owned()
        } else {
            args.method.set.join(", ")
        },
        model.device_kind(),
        ByteSize(weights as u64)
    );
    text += "\nReading a prompt and choosing the next token:\n\n";
    text += "| tokens | tokens/s | peak memory |\n| ---: | ---: | ---: |\n";
    rows(&mut text, &read)?;
    text += "\nGenerating after a single token, on average:\n\n";
    text += "| tokens | tokens/s | peak memory |\n| ---: | ---: | ---: |\n";
    rows(&mut text, &written)?;
    let config = model.config();
    if config.layers == 24 && config.hidden_size == 2048 {
        published(&mut text)?;
    }
    print(&text)
}

/// Writes random weights of a published size; returns their folder and a name.
fn random_weights(
    mut config: Architecture,
    quant: Option<Stored>,
    folder: &Path,
) -> Result<(String, String)> {
    log::info!("writing random weights");
    let (dtype, bits) = quant.unwrap_or(Stored::Bf16).parts();
    config.quantization = bits.map(random_checkpoint::packed);
    write_random_checkpoint(folder, &config, dtype, 0, random_checkpoint::SHARD_BYTES)?;
    let (layers, width) = (config.layers, config.hidden_size);
    Ok((
        folder.to_string_lossy().into_owned(),
        format!("random weights, {layers} layers, {width} wide"),
    ))
}

/// Time and memory of prompts and of generation at the lengths of the command line.
fn measure(
    args: &Args,
    model: &Transformer,
    method: &Method,
) -> Result<(Vec<Measured>, Vec<Measured>)> {
    let passes = (args.prefill.len() + args.tokens.len()) as u64;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}: {msg}")?;
    let bar = ProgressBar::new(passes).with_style(style);
    let mut read = Vec::new();
    for &n in &args.prefill {
        bar.set_message(format!("reading {n} tokens"));
        read.push(reading(model, method, args.kv, n as usize)?);
        bar.inc(1);
    }
    let mut written = Vec::new();
    for &n in &args.tokens {
        bar.set_message(format!("generating {n} tokens"));
        written.push(generating(model, method, args.kv, n as usize, &bar)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((read, written))
}

fn published(text: &mut String) -> Result<()> {
    *text += "\nPublished for Qwen-1.8B on an A100-SXM4-80G (PyTorch, flash attention; its model card):\n\n";
    *text +=
        "| type | tokens/s, 2048 | tokens/s, 8192 | GB, reading 2048 | GB, generating 8192 |\n";
    *text += "| --- | ---: | ---: | ---: | ---: |\n";
    for (dtype, speed, memory) in PUBLISHED {
        writeln!(
            text,
            "| {dtype} | {:.2} | {:.2} | {:.2} | {:.2} |",
            speed[0], speed[1], memory[0], memory[1]
        )?;
    }
    Ok(())
}

fn rows(text: &mut String, measured: &[Measured]) -> Result<()> {
    for row in measured {
        let rate = row.tokens as f64 / row.seconds.max(f64::EPSILON);
        let peak = row.peak as f64 / 1e9;
        writeln!(text, "| {} | {rate:.2} | {peak:.2} GB |", row.tokens)?;
    }
    Ok(())
}

fn decoder<'a>(
    model: &'a Transformer,
    method: &Method,
    cache: CacheType,
    capacity: usize,
) -> Result<Decoder<'a>> {
    let options = DecodeOptions {
        cache,
        stale: Stale::Rotate,
        capacity,
    };
    generation::decoder(model, method, options)
}

/// Ids that every vocabulary has; speed does not depend on them.
fn ids(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 % 251) as u32).collect()
}

fn reading(model: &Transformer, method: &Method, cache: CacheType, n: usize) -> Result<Measured> {
    let device = model.device();
    memory::start_peak(&device);
    let start = Instant::now();
    let mut decoder = decoder(model, method, cache, n)?;
    let hidden = decoder.prompt(&ids(n))?;
    decoder.logits(hidden)?;
    Ok(Measured {
        tokens: n,
        seconds: start.elapsed().as_secs_f64(),
        peak: memory::peak(&device),
    })
}

fn generating(
    model: &Transformer,
    method: &Method,
    cache: CacheType,
    n: usize,
    bar: &ProgressBar,
) -> Result<Measured> {
    let device = model.device();
    memory::start_peak(&device);
    let mut decoder = decoder(model, method, cache, n)?;
    let start = Instant::now();
    for (i, id) in ids(n).into_iter().enumerate() {
        let hidden = decoder.feed(&[id])?;
        decoder.logits(hidden)?;
        if i % 64 == 63 {
            let rate = (i + 1) as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!(
                "generating {n} tokens: {} ({rate:.1} tokens/s)",
                i + 1
            ));
        }
    }
    Ok(Measured {
        tokens: n,
        seconds: start.elapsed().as_secs_f64(),
        peak: memory::peak(&device),
    })
}
