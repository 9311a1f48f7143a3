//! `longspan plan`.

use anyhow::{Context, Result};
use burn::tensor::Device;
use bytesize::ByteSize;
use longspan::config::RunConfig;
use longspan::measure::Sweep;
use longspan::memory::{self, Memory};
use longspan::tables::{length_labels, padded};
use longspan_model::operations_per_second;

use super::args::{ConfigArgs, MemoryArgs};
use super::print;

/// Options of `plan`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// Prints the passes of a config with their estimated time and memory; runs none.
pub fn plan(args: Args) -> Result<()> {
    let path = &args.config.config;
    let config = RunConfig::load(path, &args.config.set)?;
    let sweep = Sweep::open(config).with_context(|| path.display().to_string())?;
    let limit = (args.memory.memory_limit).unwrap_or_else(memory::available);
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
    for planned in sweep.planned() {
        let operations = planned.sequences as f64 * planned.cost.operations as f64;
        let (needed, fits) = memory.needed(planned.cost.bytes);
        if fits {
            total += operations;
        }
        rows.push(vec![
            planned.method.replace('|', "\\|"),
            planned.what.to_owned(),
            planned.length.to_string(),
            length_labels(&planned.serves).join(" "),
            planned.sequences.to_string(),
            format!("{:.3}", operations / 1e12),
            duration(operations / rate),
            format!("{needed}{}", if fits { "" } else { " (refused)" }),
        ]);
    }
    print(&format!(
        "{}\ntogether {}, at {:.0} GFLOP/s (a matrix product on this machine, just measured); weights {}, \
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
