//! `longspan score`: the loss of every token of given inputs under given methods.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use longspan_attention::Method;
use longspan_data::{Corpus, Tokenizer};
use longspan_model::{WeightType, sequences_together};
use longspan_rope::Length;
use serde::{Deserialize, Serialize};

use crate::device::DeviceName;
use crate::{cells, config, memory, open, records, tokenize};

/// Options of `score`.
#[derive(clap::Args)]
pub struct Args {
    /// Hugging Face folder
    #[arg(long, value_name = "DIR")]
    model: String,
    /// TOML file with [[method]] tables, as in a run config
    #[arg(long, value_name = "FILE")]
    methods: PathBuf,
    /// Score this method alone
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// One JSON array of token ids a line
    #[arg(long, value_name = "FILE", required_unless_present = "text")]
    tokens: Option<PathBuf>,
    /// Text: a file, folder or glob, as data.path of a run config
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "tokens",
        required_unless_present = "tokens"
    )]
    text: Option<String>,
    /// Type in which weights are held [default: as stored]
    #[arg(long)]
    dtype: Option<WeightType>,
    /// Type of the activations, on a GPU: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    activations: WeightType,
    /// Where to compute: cpu, cuda, wgpu, metal or rocm, with :1 and so on for another one than the first;
    /// see `longspan devices`
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// JSON field or Parquet column of --text [default: text]
    #[arg(long, value_name = "NAME", requires = "text")]
    text_field: Option<String>,
    /// Vocabulary file for --text [default: the one in the model's folder]
    #[arg(long, value_name = "FILE", requires = "text")]
    tokenizer: Option<PathBuf>,
    /// Tokens of the first forward call, for methods with freeze = "prefill" [default: all]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    prefill: Option<u32>,
    /// Where to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodsFile {
    #[serde(rename = "method", default)]
    methods: Vec<Method>,
}

#[derive(Serialize)]
struct Line<'a> {
    method: &'a str,
    doc: usize,
    tokens: usize,
    nll: Vec<f32>,
}

/// Where token ids come from; read anew for every method, so that inputs are never all in memory.
enum Inputs {
    Ids(PathBuf),
    Text(Corpus, Box<Tokenizer>),
}

/// Where an input stands, and its ids.
type Input = Result<(String, Vec<u32>)>;

impl Inputs {
    fn open(args: &Args) -> Result<Self> {
        let Some(text) = &args.text else {
            return Ok(Inputs::Ids(args.tokens.clone().unwrap_or_default()));
        };
        let tokenizer = match &args.tokenizer {
            Some(file) => tokenize::open(file)?,
            None => open::tokenizer(&args.model, None)?,
        };
        let field = args.text_field.as_deref().unwrap_or("text");
        Ok(Inputs::Text(
            Corpus::open(text, field)?,
            Box::new(tokenizer),
        ))
    }

    fn iter(&self) -> Result<Box<dyn Iterator<Item = Input> + '_>> {
        match self {
            Inputs::Ids(path) => {
                let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
                let lines = BufReader::new(file).lines().enumerate();
                let ids = lines.map(|(number, line)| {
                    let at = format!("{}:{}", path.display(), number + 1);
                    let line = line.with_context(|| at.clone())?;
                    let ids = serde_json::from_str(&line)
                        .with_context(|| format!("{at}: not a JSON array of token ids"))?;
                    Ok((at, ids))
                });
                Ok(Box::new(ids))
            }
            Inputs::Text(corpus, tokenizer) => Ok(Box::new(corpus.documents().map(|document| {
                let document = document?;
                Ok((document.source, tokenizer.encode(&document.text)))
            }))),
        }
    }
}

/// Writes a line for each method and input.
pub fn score(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    let methods = read_methods(&args.methods, args.method.as_deref())?;
    let inputs = Inputs::open(args)?;
    let checkpoint = open::checkpoint(&args.model)?;
    // All inputs and methods are checked before the weights are read.
    let vocabulary = checkpoint.config.vocab_size;
    let (mut count, mut longest) = (0u64, 0);
    for input in inputs.iter()? {
        let (at, ids) = input?;
        if let Some(position) = ids.iter().position(|&id| id as usize >= vocabulary) {
            bail!(
                "{at}: token id {} at position {position} is outside the model's vocabulary of \
                 {vocabulary}; the tokens come from another tokenizer",
                ids[position]
            );
        }
        count += 1;
        longest = longest.max(ids.len());
    }
    ensure!(
        count > 0,
        "{}: no input to score",
        args.tokens
            .as_ref()
            .map_or(args.text.clone().unwrap_or_default(), |file| file
                .display()
                .to_string())
    );
    // The longest inputs decide; shorter ones that go through the model together are a few thousand tokens at most.
    let limit = memory::limit(None, &device);
    let weights = checkpoint
        .config
        .weight_bytes(checkpoint.matrix_type(args.dtype)?);
    let length = |n: usize| Length {
        total: n,
        prefill: args.prefill.map_or(n, |prefill| n.min(prefill as usize)),
    };
    for method in &methods {
        let plans = cells::plans(
            &checkpoint.config.geometry(),
            method,
            length(longest.max(2)),
        )?;
        let together = sequences_together(longest);
        let cost = checkpoint.config.pass_cost(&plans, together);
        let needed = ByteSize(weights + cost.bytes);
        ensure!(
            needed <= limit,
            "method \"{}\" at {longest} tokens, the longest input, needs about {needed}, {limit} is free; \
             give shorter inputs, or hold the weights in a narrower type (--dtype)",
            method.name
        );
    }
    let model = open::model(checkpoint, (args.dtype, args.activations), &device)?;

    // Whole or not at all, unless the target is a pipe or a link, as /dev/stdout is, which must not be replaced.
    let regular = (args.out.symlink_metadata()).map_or(true, |target| target.is_file());
    let written = match regular {
        true => records::partial(&args.out),
        false => args.out.clone(),
    };
    let file = std::fs::File::create(&written)
        .with_context(|| format!("{}: cannot be written", written.display()))?;
    let mut out = std::io::BufWriter::new(file);
    let bar = ProgressBar::new(methods.len() as u64 * count).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}")?,
    );
    let (mut fed, mut seconds) = (0, 0.0);
    for method in &methods {
        bar.set_message(method.name.clone());
        let mut plan = None;
        let mut inputs = inputs.iter()?.enumerate().peekable();
        while let Some((doc, input)) = inputs.next() {
            let (at, mut ids) = input?;
            let n = ids.len();
            let mut places = vec![at];
            // Inputs of one length in a row go through the model together, and share a plan.
            let alike =
                |(_, input): &(usize, Input)| matches!(input, Ok((_, ids)) if ids.len() == n);
            while places.len() < sequences_together(n)
                && let Some((_, input)) = inputs.next_if(alike)
            {
                let (at, more) = input?;
                places.push(at);
                ids.extend(more);
            }
            let mut nll = Vec::new();
            if n >= 2 {
                let laid = match plan.take() {
                    Some((tokens, laid)) if tokens == n => laid,
                    _ => model.plan(method, length(n))?,
                };
                let start = Instant::now();
                nll = model.nll(&ids, &laid)?;
                seconds += start.elapsed().as_secs_f64();
                fed += ids.len();
                plan = Some((n, laid));
            }
            let scored = n.saturating_sub(1);
            for (i, at) in places.iter().enumerate() {
                let nll = nll[i * scored..(i + 1) * scored].to_vec();
                if let Some(position) = nll.iter().position(|x| !x.is_finite()) {
                    bar.suspend(|| {
                        crate::tell(format_args!(
                            "warning: {at}: method \"{}\": the loss of token {} is {}, written as null",
                            method.name,
                            position + 1,
                            nll[position]
                        ));
                    });
                }
                let line = Line {
                    method: &method.name,
                    doc: doc + i,
                    tokens: n,
                    nll,
                };
                serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
                writeln!(out)?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .with_context(|| written.display().to_string())?;
    if regular {
        std::fs::rename(&written, &args.out).with_context(|| args.out.display().to_string())?;
    }
    crate::tell(format_args!(
        "{} methods x {count} inputs, {fed} tokens in {seconds:.3} s ({:.0} tokens/s): {}",
        methods.len(),
        fed as f64 / seconds.max(f64::EPSILON),
        args.out.display()
    ));
    Ok(())
}

fn read_methods(path: &Path, only: Option<&str>) -> Result<Vec<Method>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: MethodsFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut methods = file.methods;
    config::prepare_methods(&mut methods).with_context(|| path.display().to_string())?;
    if let Some(only) = only {
        let names: Vec<String> = methods.iter().map(|m| format!("\"{}\"", m.name)).collect();
        methods.retain(|method| method.name == only);
        ensure!(
            !methods.is_empty(),
            "{}: no method \"{only}\"; it has {}",
            path.display(),
            names.join(", ")
        );
    }
    Ok(methods)
}
