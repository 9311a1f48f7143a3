//! Memory: how much there is, how much was used, and what would not fit.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::ALLOCATED;
use crate::records::write_whole;

/// The limit that was given, or else what the CPU can have now. What a GPU has is not known: its passes are not
/// limited then.
pub fn limit(given: Option<ByteSize>, device: &Device) -> ByteSize {
    given.unwrap_or_else(|| match longspan_model::device_kind(device) == "cpu" {
        true => available(),
        false => ByteSize(u64::MAX),
    })
}

/// Free memory of the machine, or of the control group where that has less.
pub fn available() -> ByteSize {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let machine = system.available_memory();
    // The group's own "free" takes the page cache, which gives way, for used: after reading a checkpoint all of it.
    let group = system.cgroup_limits().map_or(machine, |group| {
        group.total_memory.saturating_sub(group.rss)
    });
    ByteSize(machine.min(group))
}

/// Begins to measure the most memory in use.
pub fn start_peak(device: &Device) {
    ALLOCATED.reset_peak_usage();
    // What a GPU's pools keep for reuse would count.
    device.memory_cleanup();
}

/// The most since [`start_peak`], bytes: of the heap, or of the device where that is a GPU, whose pools give nothing back
/// meanwhile.
pub fn peak(device: &Device) -> usize {
    on_device(device).unwrap_or_else(|| ALLOCATED.peak_usage())
}

/// What is in use now, bytes: of the heap, or of a GPU.
pub fn in_use(device: &Device) -> usize {
    on_device(device).unwrap_or_else(|| ALLOCATED.current_usage())
}

/// What a GPU holds, with what its pools keep for reuse.
fn on_device(device: &Device) -> Option<usize> {
    let usage = device.memory_pool_usage()?;
    Some(usage.bytes_reserved as usize)
}

/// Cells that were not computed because they would not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Name of the method.
    pub method: String,
    /// Tokens of the pass.
    pub length: usize,
    /// What was to be measured: "perplexity" or "needle".
    pub what: String,
    /// Estimated need of weights and pass, bytes.
    pub needed_bytes: u64,
    /// What it was compared with, bytes.
    pub limit_bytes: u64,
}

/// Decides what is computed, and keeps what is not.
pub struct Memory {
    limit: ByteSize,
    weights: u64,
    /// What was refused so far.
    pub refused: Vec<Refused>,
}

impl Memory {
    /// A limit for weights of so many bytes and whatever else a pass holds.
    pub fn new(limit: ByteSize, weights: u64) -> Self {
        Memory {
            limit,
            weights,
            refused: Vec::new(),
        }
    }

    /// What a pass takes that holds so many bytes besides the weights, and whether that is within the limit.
    pub fn needed(&self, bytes: u64) -> (ByteSize, bool) {
        let needed = ByteSize(self.weights + bytes);
        (needed, needed <= self.limit)
    }

    /// Whether such a pass fits; says so and remembers it if not.
    pub fn fits(&mut self, what: &str, method: &str, length: usize, bytes: u64) -> bool {
        let (needed, fits) = self.needed(bytes);
        if fits {
            return true;
        }
        crate::tell(format_args!(
            "refused: {what} of method \"{method}\" at {length} tokens needs about {needed}, the limit is {}; \
             lower the length, hold the weights in bf16 (model.dtype), or raise --memory-limit",
            self.limit
        ));
        self.refused.push(Refused {
            method: method.to_owned(),
            length,
            what: what.to_owned(),
            needed_bytes: needed.0,
            limit_bytes: self.limit.0,
        });
        false
    }
}

/// What the last run of a folder refused.
const REFUSED: &str = "refused.json";

/// Leaves them for the report; nothing stays of a former run.
///
/// # Errors
/// When the file cannot be written.
pub fn write(dir: &Path, refused: &[Refused]) -> Result<()> {
    let path = dir.join(REFUSED);
    if refused.is_empty() && !path.exists() {
        return Ok(());
    }
    write_whole(&path, serde_json::to_string_pretty(refused)?.as_bytes())
}

/// What the last run of a folder refused.
///
/// # Errors
/// A damaged file.
pub fn read(dir: &Path) -> Result<Vec<Refused>> {
    let path = dir.join(REFUSED);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Lines under a table, one for each refusal.
pub fn note(refused: &[Refused], what: &str) -> String {
    let refused = refused.iter().filter(|refused| refused.what == what);
    let lines = refused.map(|refused| {
        format!(
            "- refused: {} at {} tokens needs about {}, the limit was {}\n",
            refused.method,
            refused.length,
            ByteSize(refused.needed_bytes),
            ByteSize(refused.limit_bytes)
        )
    });
    let lines: String = lines.collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\n{lines}"),
    }
}
