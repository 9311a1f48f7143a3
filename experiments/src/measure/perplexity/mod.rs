//! Perplexity by context length.

mod cells;
pub mod floor;

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use longspan_attention::Method;
use longspan_data::Tokenizer;
use longspan_model::Architecture;

use super::{Measure, Output, Pass, Todo};
use crate::config::{PerplexityConfig, RunConfig};
use crate::folder::{NllFiles, PassLosses, PerplexityRecord, Provenance};
use crate::memory;
use crate::protocols::{TokenStream, score};
use crate::session::{Identity, LanguageModel, Session};
use cells::Cell;
use floor::Floor;

/// All cells of `[perplexity]`.
pub struct Perplexity {
    config: Rc<RunConfig>,
    perplexity: PerplexityConfig,
    tokenizer: Rc<Tokenizer>,
    stream: TokenStream,
    cells: Vec<Cell>,
    passes: Vec<Pass>,
    /// Window starts of each pass.
    starts: Vec<Vec<usize>>,
    /// The best possible losses, for the built-in articles.
    pub floors: Vec<Floor>,
}

impl Perplexity {
    /// Reads the text, and plans the passes.
    ///
    /// # Errors
    /// Text that is broken or too short; a method that does not fit the model.
    pub fn new(
        config: Rc<RunConfig>,
        perplexity: PerplexityConfig,
        tokenizer: Rc<Tokenizer>,
        model: &Architecture,
    ) -> Result<Self> {
        let stream = cells::read_tokens(&config, &perplexity, &tokenizer, model.vocab_size)?;
        let cells = cells::cells(config.methods.len(), &perplexity, &stream)?;
        let floors = floor::floors(&config.data.path, &tokenizer, &stream, &cells)?;
        let passes = cells::passes(&config.methods, &perplexity, model, &cells)?;
        let (passes, starts) = passes.into_iter().unzip();
        Ok(Perplexity {
            config,
            perplexity,
            tokenizer,
            stream,
            cells,
            passes,
            starts,
            floors,
        })
    }

    /// The losses of a pass, from the file of an earlier run or computed now.
    fn losses<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        todo: &Todo,
        key: &str,
        output: &Output<PerplexityRecord>,
    ) -> Result<PassLosses> {
        let (pass, starts) = (todo.pass, &self.starts[todo.index]);
        if let Some(losses) = output.nll.read(key, starts.len(), pass.length) {
            output.advance(starts.len(), pass.cost);
            return Ok(losses);
        }
        let device = session.model().device();
        memory::start_peak(&device);
        let start = Instant::now();
        let windows: Vec<&[u32]> = (starts.iter())
            .map(|&start| &self.stream.ids[start..start + pass.length])
            .collect();
        let length = cells::length_of(&self.perplexity, pass.length);
        let nll = session.losses(&windows, length, |fed| output.advance(fed, pass.cost))?;
        let losses = PassLosses {
            nll,
            seconds: start.elapsed().as_secs_f64(),
            peak_bytes: memory::peak(&device),
        };
        output
            .nll
            .write(key, starts, &self.stream.document_start, &losses)?;
        Ok(losses)
    }

    /// The record of a cell from the losses of its pass.
    fn record(
        &self,
        model: &Identity,
        (cell_key, cell): (&str, &Cell),
        (pass_key, pass): (&str, &Pass),
        losses: &PassLosses,
    ) -> PerplexityRecord {
        let config = &self.config;
        let method = &config.methods[cell.method];
        let nll: Vec<&[f32]> = (losses.nll.iter())
            .map(|nll| &nll[..cell.length - 1])
            .collect();
        let mean = score(cell.protocol.average(), &cell.windows, &nll);
        let finite = |x: f64| x.is_finite().then_some(x);
        PerplexityRecord {
            provenance: Provenance {
                key: cell_key.to_owned(),
                method: method.name.clone(),
                length: cell.length,
                settings: method.settings(),
                model: config.model.path.clone(),
                checkpoint: model.checkpoint.clone(),
                tokenizer: self.tokenizer.digest().to_owned(),
                data: config.data.path.clone(),
                data_digest: cell.data_digest(&self.stream),
                dtype: model.dtype.clone(),
                device: model.device.clone(),
                trained_length: model.trained,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                seconds: losses.seconds,
                tokens_per_second: (pass.sequences * pass.length) as f64 / losses.seconds,
                peak_bytes: losses.peak_bytes,
            },
            protocol: cell.protocol,
            protocol_detail: cell.detail.clone(),
            average: cell.protocol.average(),
            prefill: self.perplexity.prefill,
            pass_length: pass.length,
            nll_file: NllFiles::name(pass_key),
            perplexity: finite(mean.nll.exp()),
            nll: finite(mean.nll),
            nll_se: finite(mean.nll_se),
            se_over: mean.se_over,
            windows: cell.windows.len(),
            fed: cell.windows.len() * cell.length,
            scored: mean.scored,
        }
    }
}

impl Measure for Perplexity {
    type Record = PerplexityRecord;

    const NAME: &'static str = "perplexity";

    fn methods(&self) -> &[Method] {
        &self.config.methods
    }

    fn passes(&self) -> &[Pass] {
        &self.passes
    }

    fn keys(&self, model: &Identity) -> Vec<String> {
        let mut keys = vec![String::new(); self.cells.len()];
        for pass in &self.passes {
            let method = &self.config.methods[pass.method];
            for &cell in &pass.cells {
                keys[cell] = self.cells[cell].key(
                    method,
                    self.perplexity.prefill,
                    model,
                    &self.stream,
                    pass.length,
                );
            }
        }
        keys
    }

    /// A pass feeds all of its windows, however many of its cells are missing.
    fn sequences(&self, pass: &Pass, _cells: &[usize]) -> usize {
        pass.sequences
    }

    fn execute<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        todo: &Todo,
        output: &mut Output<PerplexityRecord>,
    ) -> Result<()> {
        let model = session.model().identity();
        let (pass, starts) = (todo.pass, &self.starts[todo.index]);
        let key = cells::pass_key(
            (pass.length, starts),
            session.method(),
            self.perplexity.prefill,
            &model,
            &self.stream,
        );
        let losses = self.losses(session, todo, &key, output)?;
        for &cell in &todo.missing {
            let of_cell = (todo.keys[cell].as_str(), &self.cells[cell]);
            output.record(self.record(&model, of_cell, (&key, pass), &losses))?;
        }
        Ok(())
    }
}
