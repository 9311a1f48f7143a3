//! From a config and its text to cells (method, protocol, length), and from cells to passes.
//!
//! A pass feeds windows of one length through the model once. It serves every cell whose windows
//! start where its own do and which has its length, or a shorter one at which the method's plan is
//! a prefix of the plan at the pass's length: then causality makes the losses equal.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use longspan_attention::{Method, Model};
use longspan_data::{Corpus, Tokenizer};
use longspan_model::{Architecture, sequences_together};
use longspan_rope::Length;
use serde_json::json;

use crate::config::{PerplexityConfig, RunConfig};
use crate::measure::keys::{digest, model_identity};
use crate::measure::{Pass, check_ids, plans};
use crate::protocols::{Average, ProtocolName, TokenStream, Window};
use crate::session::Identity;

/// One number of the table.
pub struct Cell {
    /// Index into the config's methods.
    pub method: usize,
    /// How it is measured.
    pub protocol: ProtocolName,
    /// The protocol with its settings, in words.
    pub detail: String,
    /// Tokens per window.
    pub length: usize,
    /// The windows fed, with the positions scored.
    pub windows: Vec<Window>,
}

/// Reads as much of the corpus as the protocols need.
///
/// # Errors
/// A broken corpus; no text; too little of it for the longest length; an id outside the model's
/// vocabulary.
pub(super) fn read_tokens(
    config: &RunConfig,
    perplexity: &PerplexityConfig,
    tokenizer: &Tokenizer,
    vocabulary: usize,
) -> Result<TokenStream> {
    let data = &config.data;
    let corpus = Corpus::open(&data.path, &data.text_field)?;
    let protocols = perplexity.protocols();
    let longest = perplexity.budget().longest;
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

/// Every cell of the config: methods, then protocols, then lengths.
///
/// # Errors
/// An option that a protocol refuses.
pub(super) fn cells(
    methods: usize,
    perplexity: &PerplexityConfig,
    stream: &TokenStream,
) -> Result<Vec<Cell>> {
    let budget = perplexity.budget();
    let mut cells = Vec::new();
    for method in 0..methods {
        for (protocol, options) in perplexity.chosen()? {
            let words = protocol.describe(&budget, &options)?;
            let average = match protocol.average() {
                Average::Tokens => "mean over tokens",
                Average::Windows => "mean over windows, unweighted",
            };
            let detail = format!(
                "text: {}; fed: {}, at most {} tokens per cell; scored: {}; no BOS; {average}",
                words.text, words.fed, budget.max_tokens, words.scored
            );
            for &length in &perplexity.lengths {
                cells.push(Cell {
                    method,
                    protocol,
                    detail: detail.clone(),
                    length,
                    windows: protocol.windows(stream, &budget, &options, length)?,
                });
            }
        }
    }
    Ok(cells)
}

/// Total and prefill of a pass over `n` tokens.
pub(super) fn length_of(perplexity: &PerplexityConfig, n: usize) -> Length {
    Length {
        total: n,
        prefill: perplexity.prefill.unwrap_or(n).min(n),
    }
}

/// A pass with the starts of its windows in the stream.
pub(super) type PassOver = (Pass, Vec<usize>);

/// The fewest passes that serve all cells, short ones first.
///
/// # Errors
/// A method that does not fit the model.
pub(super) fn passes(
    methods: &[Method],
    perplexity: &PerplexityConfig,
    model: &Architecture,
    cells: &[Cell],
) -> Result<Vec<PassOver>> {
    let geometry = model.geometry();
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&index| (cells[index].method, usize::MAX - cells[index].length));
    let mut passes: Vec<PassOver> = Vec::new();
    for index in order {
        let cell = &cells[index];
        let method = &methods[cell.method];
        let starts: Vec<usize> = cell.windows.iter().map(|window| window.start).collect();
        let mut host = None;
        for (candidate, (pass, of_pass)) in passes.iter().enumerate() {
            if pass.method == cell.method
                && *of_pass == starts
                && serves(perplexity, &geometry, method, pass.length, cell.length)?
            {
                host = Some(candidate);
                break;
            }
        }
        if let Some(host) = host {
            passes[host].0.cells.push(index);
            continue;
        }
        // Planned now, so that a method that does not fit is refused before anything runs.
        let plans = plans(&geometry, method, length_of(perplexity, cell.length))?;
        let together = sequences_together(cell.length).min(starts.len());
        let pass = Pass {
            method: cell.method,
            length: cell.length,
            sequences: starts.len(),
            cells: vec![index],
            serves: Vec::new(),
            cost: model.pass_cost(&plans, together),
        };
        passes.push((pass, starts));
    }
    for (pass, _) in &mut passes {
        let served = pass.cells.iter().map(|&cell| cells[cell].length);
        pass.serves = served.collect();
        pass.serves.sort_unstable();
        pass.serves.dedup();
    }
    // Short passes first: they are quick, and show early whether a run is worth its time.
    passes.sort_by_key(|(pass, _)| (pass.length, pass.method));
    Ok(passes)
}

/// True if a pass over `long` tokens yields the losses of one over `short`.
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
    let of_short = plans(model, method, length_of(perplexity, short))?;
    let of_long = plans(model, method, length_of(perplexity, long))?;
    Ok(of_short.is_prefix_of(&of_long))
}

/// Digest of the tokens of windows of `length`, and of which of them are scored.
fn data_digest<'a>(
    stream: &TokenStream,
    length: usize,
    windows: impl Iterator<Item = (usize, Option<&'a Range<usize>>)>,
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
    pub(super) fn data_digest(&self, stream: &TokenStream) -> String {
        let windows = self.windows.iter();
        data_digest(
            stream,
            self.length,
            windows.map(|window| (window.start, Some(&window.scored))),
        )
    }

    /// Digest of all that determines the cell's number, down to the last bit: the length of the
    /// pass it is taken from can change the rounding.
    pub(super) fn key(
        &self,
        method: &Method,
        prefill: Option<usize>,
        model: &Identity,
        stream: &TokenStream,
        pass_length: usize,
    ) -> String {
        digest(json!({
            "model": model_identity(method, prefill, model),
            "length": self.length,
            "pass_length": pass_length,
            "protocol": self.protocol,
            "data": self.data_digest(stream),
            "groups": self.windows.iter().map(|window| window.group).collect::<Vec<_>>(),
        }))
    }
}

/// Digest of all that determines the losses of a pass.
pub(super) fn pass_key(
    (length, starts): (usize, &[usize]),
    method: &Method,
    prefill: Option<usize>,
    model: &Identity,
    stream: &TokenStream,
) -> String {
    let windows = starts.iter().map(|&start| (start, None));
    digest(json!({
        "model": model_identity(method, prefill, model),
        "length": length,
        "data": data_digest(stream, length, windows),
    }))
}
