//! `longspan score`: the loss of every token of given inputs under given methods.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use longspan_attention::Method;
use longspan_data::Corpus;
use longspan_model::WeightType;
use longspan_rope::Length;
use serde::{Deserialize, Serialize};

use crate::{config, tokenize};

/// Options of `score`.
#[derive(clap::Args)]
#[group(id = "input", required = true, multiple = false, args = ["tokens", "text"])]
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
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Text: a file, folder or glob, as data.path of a run config
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    /// Type in which weights are held [default: as stored]
    #[arg(long, value_parser = crate::weight_type)]
    dtype: Option<WeightType>,
    /// Vocabulary file for --text [default: the one in the model's folder]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
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

/// Writes a line for each method and input.
pub fn score(args: &Args) -> Result<()> {
    let methods = read_methods(&args.methods, args.method.as_deref())?;
    let inputs = match (&args.tokens, &args.text) {
        (Some(file), _) => read_ids(file)?,
        (None, Some(text)) => {
            let tokenizer = match &args.tokenizer {
                Some(file) => tokenize::open(file)?,
                None => config::load_tokenizer(&args.model, None)?,
            };
            let corpus = Corpus::open(text, "text")?;
            corpus
                .documents()
                .map(|document| Ok(tokenizer.encode(&document?.text)))
                .collect::<Result<Vec<_>>>()?
        }
        (None, None) => bail!("give --tokens or --text"),
    };
    ensure!(!inputs.is_empty(), "no input to score");
    let model = config::load_model(&args.model, args.dtype)?;
    let vocabulary = model.config().vocab_size;
    for (doc, ids) in inputs.iter().enumerate() {
        if let Some(position) = ids.iter().position(|&id| id as usize >= vocabulary) {
            bail!(
                "input {doc}: token id {} at position {position} is outside the model's vocabulary of \
                 {vocabulary}; the tokens come from another tokenizer",
                ids[position]
            );
        }
    }
    let partial = args.out.with_extension("partial");
    let file = std::fs::File::create(&partial)
        .with_context(|| format!("{}: cannot be written", partial.display()))?;
    let mut out = std::io::BufWriter::new(file);
    let bar = ProgressBar::new((methods.len() * inputs.len()) as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}")?,
    );
    for method in &methods {
        bar.set_message(method.name.clone());
        let in_method = || format!("method \"{}\"", method.name);
        let mut plan = None;
        for (doc, ids) in inputs.iter().enumerate() {
            let n = ids.len();
            let nll = if n < 2 {
                Vec::new()
            } else {
                // Inputs of one length in a row share a plan.
                let laid = match plan.take() {
                    Some((length, laid)) if length == n => laid,
                    _ => {
                        let length = Length {
                            total: n,
                            prefill: n,
                        };
                        model.plan(method, length).with_context(in_method)?
                    }
                };
                let nll = model.nll(ids, &laid)?;
                plan = Some((n, laid));
                nll
            };
            let line = Line {
                method: &method.name,
                doc,
                tokens: n,
                nll,
            };
            serde_json::to_writer(&mut out, &line)?;
            writeln!(out)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, &args.out))
        .with_context(|| args.out.display().to_string())?;
    eprintln!(
        "{} methods x {} inputs: {}",
        methods.len(),
        inputs.len(),
        args.out.display()
    );
    Ok(())
}

fn read_methods(path: &Path, only: Option<&str>) -> Result<Vec<Method>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: MethodsFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut methods = file.methods;
    config::check_methods(&methods).with_context(|| path.display().to_string())?;
    for method in &mut methods {
        let resolved = method.rope.resolve();
        resolved.with_context(|| format!("{}: method \"{}\"", path.display(), method.name))?;
    }
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

fn read_ids(path: &Path) -> Result<Vec<Vec<u32>>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut inputs = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let at = || format!("{}:{}", path.display(), number + 1);
        let line = line.with_context(at)?;
        if line.trim().is_empty() {
            continue;
        }
        let ids = serde_json::from_str(&line)
            .with_context(|| format!("{}: not a JSON array of token ids", at()))?;
        inputs.push(ids);
    }
    Ok(inputs)
}
