//! `longspan score`: the loss of every token of given inputs under given methods.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use longspan::session::Session;
use longspan::{config, folder, measure, memory, open};
use longspan_attention::Method;
use longspan_data::{Corpus, Tokenizer};
use longspan_model::{Checkpoint, Transformer, sequences_together};
use longspan_rope::Length;
use serde::{Deserialize, Serialize};

use super::args::HeldArgs;
use super::tokenize;

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
    #[command(flatten)]
    held: HeldArgs,
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

impl Args {
    fn length(&self, n: usize) -> Length {
        let prefill = self.prefill.map_or(n, |prefill| n.min(prefill as usize));
        Length { total: n, prefill }
    }
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

/// Sources of token ids; read again for every method, so that inputs are never all in memory.
enum Inputs {
    Ids(PathBuf),
    Text(Corpus, Box<Tokenizer>),
}

/// Place and ids of an input.
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
                let file = File::open(path).with_context(|| path.display().to_string())?;
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

    /// Checks all ids; returns the number of inputs and the tokens of the longest.
    fn check(&self, vocabulary: usize) -> Result<(u64, usize)> {
        let (mut count, mut longest) = (0u64, 0);
        for input in self.iter()? {
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
        Ok((count, longest))
    }
}

/// Writes a line for each method and input.
pub fn score(args: Args) -> Result<()> {
    let device = args.held.device.device.open()?;
    let methods = read_methods(&args.methods, args.method.as_deref())?;
    let inputs = Inputs::open(&args)?;
    let checkpoint = open::checkpoint(&args.model)?;
    // All inputs and methods are checked before the weights are read.
    let (count, longest) = inputs.check(checkpoint.config.vocab_size)?;
    let source = match (&args.tokens, &args.text) {
        (Some(file), _) => file.display().to_string(),
        (None, text) => text.clone().unwrap_or_default(),
    };
    ensure!(count > 0, "{source}: no input to score");
    check_memory(&args, &checkpoint, &methods, longest, &device)?;
    let types = (args.held.dtype, args.held.activations);
    let model = open::model(checkpoint, types, &device)?;

    let mut out = Out::create(&args.out)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}")?;
    let bar = ProgressBar::new(methods.len() as u64 * count).with_style(style);
    let (mut fed, mut seconds) = (0, 0.0);
    for method in &methods {
        bar.set_message(method.name.clone());
        let mut session = Session::new(&model, method);
        seconds += score_method(&args, &mut session, &inputs, &mut out, &bar)?;
        fed += session.fed;
    }
    bar.finish_and_clear();
    out.finish()?;
    log::info!(
        "{} methods x {count} inputs, {fed} tokens in {seconds:.3} s ({:.0} tokens/s): {}",
        methods.len(),
        fed as f64 / seconds.max(f64::EPSILON),
        args.out.display()
    );
    Ok(())
}

/// Refuses inputs whose longest does not fit in memory; shorter ones that go through the model
/// together are a few thousand tokens at most.
fn check_memory(
    args: &Args,
    checkpoint: &Checkpoint,
    methods: &[Method],
    longest: usize,
    device: &Device,
) -> Result<()> {
    let limit = memory::limit(None, device);
    let dtype = checkpoint.matrix_type(args.held.dtype)?;
    let weights = checkpoint.config.weight_bytes(dtype);
    for method in methods {
        let geometry = checkpoint.config.geometry();
        let plans = measure::plans(&geometry, method, args.length(longest.max(2)))?;
        let cost = (checkpoint.config).pass_cost(&plans, sequences_together(longest));
        let needed = ByteSize(weights + cost.bytes);
        ensure!(
            needed <= limit,
            "method \"{}\" at {longest} tokens, the longest input, needs about {needed}, {limit} is free; \
             give shorter inputs, or hold the weights in a narrower type (--dtype)",
            method.name
        );
    }
    Ok(())
}

/// Scores all inputs under one method; returns the seconds of its passes.
fn score_method(
    args: &Args,
    session: &mut Session<Transformer>,
    inputs: &Inputs,
    out: &mut Out,
    bar: &ProgressBar,
) -> Result<f64> {
    let mut seconds = 0.0;
    let name = &session.method().name;
    let mut numbered = inputs.iter()?.enumerate().peekable();
    while let Some((doc, input)) = numbered.next() {
        let mut alike = vec![input?];
        let n = alike[0].1.len();
        // Consecutive inputs of one length go through the model together, and share a plan.
        let same = |(_, input): &(usize, Input)| matches!(input, Ok((_, ids)) if ids.len() == n);
        while alike.len() < sequences_together(n)
            && let Some((_, input)) = numbered.next_if(same)
        {
            alike.push(input?);
        }
        let windows: Vec<&[u32]> = alike.iter().map(|(_, ids)| ids.as_slice()).collect();
        if n >= 2 {
            session.prepare(args.length(n))?;
        }
        let start = Instant::now();
        let losses = session.losses(&windows, args.length(n), |_| ())?;
        seconds += start.elapsed().as_secs_f64();
        for (i, ((at, _), nll)) in alike.iter().zip(losses).enumerate() {
            if let Some(position) = nll.iter().position(|x| !x.is_finite()) {
                bar.suspend(|| {
                    log::warn!(
                        "{at}: method \"{name}\": the loss of token {} is {}, written as null",
                        position + 1,
                        nll[position]
                    );
                });
            }
            out.line(&Line {
                method: name,
                doc: doc + i,
                tokens: n,
                nll,
            })?;
            bar.inc(1);
        }
    }
    Ok(seconds)
}

/// The output. A file gets its name when it is complete; a pipe, or a link such as /dev/stdout,
/// must not be replaced and is written to directly.
struct Out {
    target: PathBuf,
    written: PathBuf,
    file: BufWriter<File>,
}

impl Out {
    fn create(target: &Path) -> Result<Self> {
        let regular = (target.symlink_metadata()).map_or(true, |metadata| metadata.is_file());
        let written = if regular {
            folder::partial(target)
        } else {
            target.to_owned()
        };
        let file = File::create(&written)
            .with_context(|| format!("{}: cannot be written", written.display()))?;
        Ok(Out {
            target: target.to_owned(),
            written,
            file: BufWriter::new(file),
        })
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        serde_json::to_writer(&mut self.file, line).map_err(std::io::Error::from)?;
        Ok(writeln!(self.file)?)
    }

    fn finish(self) -> Result<()> {
        let name = || self.written.display().to_string();
        self.file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .with_context(name)?;
        if self.written != self.target {
            std::fs::rename(&self.written, &self.target)
                .with_context(|| self.target.display().to_string())?;
        }
        Ok(())
    }
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
