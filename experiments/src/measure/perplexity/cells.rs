//! From a config and its text to cells (method, protocol, length), and from cells to passes.
//!
//! A pass feeds windows of one length through the model once. It serves every cell whose windows start
//! where its own do and which have its length, or a shorter one at which the method's plan is a prefix
//! of the plan at the pass's length: then causality makes the losses equal.

use anyhow::{Context, Result, bail, ensure};
use longspan_attention::{Method, Model, Plans};
use longspan_data::{Corpus, Tokenizer};
use longspan_model::{PassCost, Transformer, Architecture, sequences_together};
use longspan_rope::Length;
use serde_json::{Value, json};

use crate::config::{PerplexityConfig, RunConfig};
use crate::protocol::{Protocol, TokenStream, Window};

/// Raised when a change of the program changes what is computed for the same config.
const EVALUATION: u32 = 3;

/// One number of the table.
pub struct Cell {
    /// Index into the config's methods.
    pub method: usize,
    /// How it is measured.
    pub protocol: Protocol,
    /// Tokens per window.
    pub length: usize,
    /// What is fed and scored.
    pub windows: Vec<Window>,
}

/// Windows that go through the model once.
pub struct Pass {
    /// Index into the config's methods.
    pub method: usize,
    /// Tokens per window.
    pub length: usize,
    /// Window starts in the stream.
    pub starts: Vec<usize>,
    /// Indices of the cells that it serves.
    pub cells: Vec<usize>,
    /// What each window costs.
    pub cost: PassCost,
}

/// Reads as much of the corpus as the protocols need.
///
/// # Errors
/// A broken corpus; no text; too little of it for the longest length; an id outside the model's
/// vocabulary.
pub fn read_tokens(
    config: &RunConfig,
    perplexity: &PerplexityConfig,
    tokenizer: &Tokenizer,
    vocabulary: usize,
) -> Result<TokenStream> {
    let data = &config.data;
    let corpus = Corpus::open(&data.path, &data.text_field)?;
    let protocols = perplexity.protocol.list();
    let longest = perplexity.longest();
    let concatenated = protocols.iter().any(|protocol| !protocol.by_document());
    let by_document = protocols.iter().any(|protocol| protocol.by_document());
    let mut stream = TokenStream::default();
    let (mut documents, mut longest_document, mut fed_by_document) = (0usize, 0, 0);
    for document in corpus.documents() {
        if !(concatenated && stream.ids.len() < perplexity.max_tokens
            || by_document && fed_by_document < perplexity.max_tokens)
        {
            break;
        }
        let document = document?;
        let ids = tokenizer.encode(&document.text);
        check_ids(&document.source, &ids, tokenizer, vocabulary)?;
        documents += 1;
        longest_document = longest_document.max(ids.len());
        if ids.len() >= longest {
            fed_by_document += longest;
        } else if !concatenated || stream.ids.len() >= perplexity.max_tokens {
            continue;
        }
        stream.document_start.push(stream.ids.len());
        stream.document_number.push(documents - 1);
        stream.ids.extend(ids);
    }
    ensure!(
        longest_document > 0,
        "data.path = \"{}\": {documents} documents and no text in them; name a corpus with text",
        data.path
    );
    if by_document && longest_document < longest {
        bail!(
            "data.path = \"{}\": the longest of {documents} documents has {longest_document} tokens, \
             perplexity.lengths asks for {longest} within one document; lower the length, give longer \
             documents, or use protocol = \"packed\", which concatenates them",
            data.path
        );
    }
    ensure!(
        !concatenated || stream.ids.len() >= longest,
        "data.path = \"{}\": {documents} documents hold {} tokens together, perplexity.lengths asks for \
         {longest}; lower the length or give more text",
        data.path,
        stream.ids.len()
    );
    Ok(stream)
}

/// Checks that a text's ids are the model's.
///
/// # Errors
/// An id outside its vocabulary.
pub fn check_ids(text: &str, ids: &[u32], tokenizer: &Tokenizer, vocabulary: usize) -> Result<()> {
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        bail!(
            "{text}: token id {id} is outside the model's vocabulary of {vocabulary}; the vocabulary file \
             has {} tokens and is another model's",
            tokenizer.vocab_size()
        );
    }
    Ok(())
}

/// Every cell of the config: methods, then protocols, then lengths.
pub fn cells(config: &RunConfig, perplexity: &PerplexityConfig, stream: &TokenStream) -> Vec<Cell> {
    let mut cells = Vec::new();
    for method in 0..config.methods.len() {
        for protocol in perplexity.protocol.list() {
            for &length in &perplexity.lengths {
                cells.push(Cell {
                    method,
                    protocol,
                    length,
                    windows: protocol.windows(stream, perplexity, length),
                });
            }
        }
    }
    cells
}

/// Total and prefill of a pass over `n` tokens under the config.
pub fn lengths_of(perplexity: &PerplexityConfig, n: usize) -> Length {
    Length {
        total: n,
        prefill: perplexity.prefill.unwrap_or(n).min(n),
    }
}

/// The fewest passes that serve all cells, short ones first.
///
/// # Errors
/// A method that does not fit the model.
pub fn passes(
    config: &RunConfig,
    perplexity: &PerplexityConfig,
    model: &Architecture,
    cells: &[Cell],
) -> Result<Vec<Pass>> {
    let geometry = model.geometry();
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&index| (cells[index].method, usize::MAX - cells[index].length));
    let mut passes: Vec<Pass> = Vec::new();
    for index in order {
        let cell = &cells[index];
        let method = &config.methods[cell.method];
        let starts: Vec<usize> = cell.windows.iter().map(|window| window.start).collect();
        let mut host = None;
        for (candidate, pass) in passes.iter().enumerate() {
            if pass.method == cell.method
                && pass.starts == starts
                && serves(perplexity, &geometry, method, pass.length, cell.length)?
            {
                host = Some(candidate);
                break;
            }
        }
        match host {
            Some(host) => passes[host].cells.push(index),
            None => {
                // Planned now, so that a method that does not fit is refused before anything runs.
                let plans = plans(&geometry, method, lengths_of(perplexity, cell.length))?;
                let together = sequences_together(cell.length).min(starts.len());
                passes.push(Pass {
                    method: cell.method,
                    length: cell.length,
                    starts,
                    cells: vec![index],
                    cost: model.pass_cost(&plans, together),
                });
            }
        }
    }
    // Short passes first: they are quick and show early whether a run is worth its time.
    passes.sort_by_key(|pass| (pass.length, pass.method));
    Ok(passes)
}

/// The plans of a method; what it refuses is reported under its name.
pub fn plans(model: &Model, method: &Method, length: Length) -> Result<Plans> {
    method
        .plan(model, length)
        .with_context(|| format!("method \"{}\"", method.name))
}

/// Whether a pass over `long` tokens yields the losses of one over `short`.
fn serves(
    perplexity: &PerplexityConfig,
    model: &Model,
    method: &Method,
    long: usize,
    short: usize,
) -> Result<bool> {
    if long == short {
        return Ok(true);
    }
    let of_short = plans(model, method, lengths_of(perplexity, short))?;
    let of_long = plans(model, method, lengths_of(perplexity, long))?;
    Ok(of_short.is_prefix_of(&of_long))
}

/// Everything that a number of this run depends on, apart from its cell.
pub fn model_identity(method: &Method, prefill: Option<usize>, model: &Transformer) -> Value {
    json!({
        "evaluation": EVALUATION,
        "checkpoint": model.digest(),
        "dtype": model.types(),
        "device": model.device_kind(),
        "method": method.settings(),
        "prefill": prefill,
    })
}

/// The key of all that a number depends on.
pub fn digest(mut identity: Value) -> String {
    // The order in which a config gives options is not part of what they mean.
    identity.sort_all_objects();
    blake3::hash(identity.to_string().as_bytes())
        .to_hex()
        .to_string()
}

/// Digest of the tokens of windows of `length`, and of which of them are scored.
fn data_digest<'a>(
    stream: &TokenStream,
    length: usize,
    windows: impl Iterator<Item = (usize, Option<&'a std::ops::Range<usize>>)>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    for (start, scored) in windows {
        for id in &stream.ids[start..start + length] {
            hasher.update(&id.to_le_bytes());
        }
        if let Some(scored) = scored {
            hasher.update(&(scored.start as u64).to_le_bytes());
            hasher.update(&(scored.end as u64).to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

impl Cell {
    /// Digest of the tokens fed and scored.
    pub fn data_digest(&self, stream: &TokenStream) -> String {
        let windows = self.windows.iter();
        data_digest(
            stream,
            self.length,
            windows.map(|window| (window.start, Some(&window.scored))),
        )
    }

    /// Digest of all that determines the cell's number, down to the last bit: the length of the pass it
    /// is taken from can change the rounding.
    pub fn key(
        &self,
        method: &Method,
        perplexity: &PerplexityConfig,
        model: &Transformer,
        stream: &TokenStream,
        pass_length: usize,
    ) -> String {
        digest(json!({
            "model": model_identity(method, perplexity.prefill, model),
            "length": self.length,
            "pass_length": pass_length,
            "protocol": self.protocol,
            "data": self.data_digest(stream),
            "groups": self.windows.iter().map(|window| window.group).collect::<Vec<_>>(),
        }))
    }
}

impl Pass {
    /// Digest of all that determines the losses of the pass.
    pub fn key(
        &self,
        method: &Method,
        perplexity: &PerplexityConfig,
        model: &Transformer,
        stream: &TokenStream,
    ) -> String {
        let windows = self.starts.iter().map(|&start| (start, None));
        digest(json!({
            "model": model_identity(method, perplexity.prefill, model),
            "length": self.length,
            "data": data_digest(stream, self.length, windows),
        }))
    }
}
