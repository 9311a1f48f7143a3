//! The loop over passes, with a model that only counts.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use burn::tensor::Device;
use bytesize::ByteSize;
use indicatif::ProgressBar;
use longspan_attention::Method;
use longspan_data::{BUILTIN_ARTICLES, Tokenizer};
use longspan_model::Architecture;
use longspan_rope::Length;
use serde_json::json;

use super::perplexity::Perplexity;
use super::run;
use crate::config::RunConfig;
use crate::folder::{Provenance, RunFolder};
use crate::memory::Memory;
use crate::session::{Identity, LanguageModel};

/// The loss of a token is its id divided by 100; counts the tokens fed.
struct Mock {
    architecture: Architecture,
    fed: Cell<usize>,
}

impl LanguageModel for Mock {
    type Plan = usize;

    fn identity(&self) -> Identity {
        Identity {
            checkpoint: "mock".to_owned(),
            dtype: "f32".to_owned(),
            device: "cpu".to_owned(),
            trained: self.architecture.trained,
        }
    }

    fn device(&self) -> Device {
        Device::flex()
    }

    fn plan(&self, _: &Method, length: Length) -> Result<usize> {
        Ok(length.total)
    }

    fn nll(&self, ids: &[u32], n: &usize) -> Result<Vec<f32>> {
        self.fed.set(self.fed.get() + ids.len());
        let losses = ids.chunks(*n).flat_map(|ids| &ids[1..]);
        Ok(losses.map(|&id| id as f32 / 100.0).collect())
    }

    fn most_likely(&self, _: &[u32], _: &usize, _: Range<usize>) -> Result<Vec<Option<u32>>> {
        unreachable!("perplexity asks for losses")
    }

    fn generate(
        &self,
        _: &Method,
        _: &[u32],
        _: usize,
        _: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<(Vec<u32>, usize)> {
        unreachable!("perplexity asks for losses")
    }
}

fn mock() -> Mock {
    let checkpoint = crate::open::checkpoint("builtin:random").unwrap();
    Mock {
        architecture: checkpoint.config,
        fed: Cell::new(0),
    }
}

/// Two methods at three lengths; plain serves all from the longest.
fn perplexity(model: &Mock) -> Perplexity {
    let ntk = json!({"name": "ntk", "rope": {"kind": "dynamic_ntk"}});
    let methods = vec![Method::named("plain"), serde_json::from_value(ntk).unwrap()];
    let lengths = [128, 256, 512];
    let mut config = RunConfig::perplexity("mock", BUILTIN_ARTICLES, lengths, methods).unwrap();
    let table = config.perplexity.as_mut().unwrap();
    (table.max_tokens, table.nested) = (2048, true);
    let table = table.clone();
    let tokenizer = Rc::new(Tokenizer::bytes());
    Perplexity::new(Rc::new(config), table, tokenizer, &model.architecture).unwrap()
}

fn measure(model: &Mock, folder: &mut RunFolder, limit: ByteSize) -> Memory {
    let mut memory = Memory::new(limit, 0);
    let output = (&mut folder.perplexity, &folder.nll);
    let progress = ProgressBar::hidden();
    run(&perplexity(model), model, output, &mut memory, &progress).unwrap();
    memory
}

#[test]
fn every_cell_is_computed_once_and_a_pass_serves_what_it_can() {
    let (model, mut folder) = (mock(), RunFolder::in_memory());
    let memory = measure(&model, &mut folder, ByteSize(u64::MAX));
    assert!(memory.refused.is_empty());
    let records = folder.perplexity.records.clone();
    assert_eq!(records.len(), 6);
    let pass_length = |method: &str, length: usize| {
        let is = |p: &Provenance| p.method == method && p.length == length;
        let record = records.iter().find(|record| is(&record.provenance));
        record.unwrap().pass_length
    };
    // Trained at 256: dynamic NTK differs at 512.
    assert_eq!([128, 256, 512].map(|n| pass_length("plain", n)), [512; 3]);
    assert_eq!(
        [128, 256, 512].map(|n| pass_length("ntk", n)),
        [256, 256, 512]
    );
    // Four windows, at the starts of the longest.
    assert_eq!(model.fed.get(), 4 * (512 + 256 + 512));
    for record in &records {
        assert_eq!(record.windows, 4);
        assert_eq!(record.scored, 4 * (record.provenance.length - 1));
        assert!(record.nll.unwrap() > 0.3 && record.nll.unwrap() < 1.3);
    }
    // Everything has its record now.
    measure(&model, &mut folder, ByteSize(u64::MAX));
    assert_eq!(model.fed.get(), 4 * (512 + 256 + 512));
    assert_eq!(folder.perplexity.records, records);
}

#[test]
fn a_missing_record_is_filled_and_what_does_not_fit_is_refused() {
    let (model, mut folder) = (mock(), RunFolder::in_memory());
    let measured = perplexity(&model);
    let bytes = |length: usize| {
        use super::Measure;
        let passes = measured.passes().iter();
        let of_length = passes.filter(|pass| pass.length == length);
        of_length.map(|pass| pass.cost.bytes).max().unwrap()
    };
    let memory = measure(&model, &mut folder, ByteSize(bytes(256)));
    let refused: Vec<(&str, usize)> = (memory.refused.iter())
        .map(|refused| (refused.method.as_str(), refused.length))
        .collect();
    assert_eq!(refused, [("plain", 512), ("ntk", 512)]);
    assert_eq!(folder.perplexity.records.len(), 2); // ntk at 128 and 256
    assert_eq!(model.fed.get(), 4 * 256);

    folder.perplexity.records.remove(0);
    measure(&model, &mut folder, ByteSize(bytes(256)));
    assert_eq!(folder.perplexity.records.len(), 2);
    assert_eq!(model.fed.get(), 2 * 4 * 256);
}
