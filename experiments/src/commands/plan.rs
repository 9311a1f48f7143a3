//! `longspan plan`: the passes of a config with their estimated time and memory; runs none.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use bytesize::ByteSize;
use longspan_model::{PassCost, operations_per_second};

use crate::memory::{self, Memory};
use crate::report::{length_labels, padded};
use crate::run::Sweep;
use crate::{config::RunConfig, print};

/// Passes of one method at one length.
pub struct Planned {
    /// What is measured.
    pub what: &'static str,
    /// Name of the method.
    pub method: String,
    /// Tokens of a pass.
    pub length: usize,
    /// Passes, at most.
    pub passes: usize,
    /// The lengths whose cells the passes serve.
    pub serves: Vec<usize>,
    /// What one of them costs.
    pub cost: PassCost,
}

/// Prints a table.
pub fn plan(path: &Path, set: &[String], limit: Option<ByteSize>) -> Result<()> {
    let config = RunConfig::load(path, set)?;
    let sweep = Sweep::new(&config, path)?;
    let limit = limit.unwrap_or_else(memory::available);
    let weights = sweep.weight_bytes()?;
    let memory = Memory::new(limit, weights);
    let rate = operations_per_second(&Device::flex());
    let mut rows = vec![
        [
            "method",
            "measures",
            "tokens",
            "for lengths",
            "passes",
            "TFLOP",
            "time",
            "memory",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut total = 0.0;
    for planned in sweep.planned()? {
        let operations = planned.passes as f64 * planned.cost.operations as f64;
        let (needed, fits) = memory.needed(planned.cost.bytes);
        if fits {
            total += operations;
        }
        rows.push(vec![
            planned.method.replace('|', "\\|"),
            planned.what.to_owned(),
            planned.length.to_string(),
            length_labels(&planned.serves).join(" "),
            planned.passes.to_string(),
            format!("{:.3}", operations / 1e12),
            duration(operations / rate),
            format!("{needed}{}", if fits { "" } else { " (refused)" }),
        ]);
    }
    print(&format!(
        "{}\ntogether {}, at the {:.0} GFLOP/s that a matrix product just now reached on this machine; weights {}, \
         memory limit {limit}\n",
        padded(&rows),
        duration(total / rate),
        rate / 1e9,
        ByteSize(weights)
    ))
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under 1 s".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
