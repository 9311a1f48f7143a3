//! Free memory, peaks of memory in use, and passes refused because they do not fit.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::folder::write_whole;

/// The allocator that counts the heap. A program that wants peaks of the CPU's memory makes it its
/// `#[global_allocator]`; in others they are 0.
pub use peak_alloc::PeakAlloc;

/// Its counters, which are those of the process.
const HEAP: PeakAlloc = PeakAlloc;

/// The limit that was given, or the free memory of the CPU. How much memory a GPU has is not known,
/// so its passes are not limited then.
pub fn limit(given: Option<ByteSize>, device: &Device) -> ByteSize {
    given.unwrap_or_else(|| {
        if longspan_model::device_kind(device) == "cpu" {
            available()
        } else {
            ByteSize(u64::MAX)
        }
    })
}

/// Free memory of the machine, or of the control group where that has less.
pub fn available() -> ByteSize {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let machine = system.available_memory();
    // The group's own "free" counts the page cache as used: after reading a checkpoint, all of it.
    let group = system.cgroup_limits().map_or(machine, |group| {
        group.total_memory.saturating_sub(group.rss)
    });
    ByteSize(machine.min(group))
}

/// Starts to measure the peak of memory in use.
pub fn start_peak(device: &Device) {
    HEAP.reset_peak_usage();
    // Memory that a GPU's pools keep for reuse counts as used; this releases it.
    device.memory_cleanup();
}

/// The peak since [`start_peak`], bytes: of the heap, or of a GPU, whose pools only grow between
/// two calls of [`start_peak`].
pub fn peak(device: &Device) -> usize {
    on_device(device).unwrap_or_else(|| HEAP.peak_usage())
}

/// Memory in use now, bytes: of the heap, or of a GPU.
pub fn in_use(device: &Device) -> usize {
    on_device(device).unwrap_or_else(|| HEAP.current_usage())
}

/// Memory of a GPU, with what its pools keep for reuse.
fn on_device(device: &Device) -> Option<usize> {
    let usage = device.memory_pool_usage()?;
    Some(usage.bytes_reserved as usize)
}

/// A pass that was not run because it does not fit in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Name of the method.
    pub method: String,
    /// Tokens of the pass.
    pub length: usize,
    /// The measurement: "perplexity" or "needle".
    pub what: String,
    /// Estimated need of weights and pass, bytes.
    pub needed_bytes: u64,
    /// The limit, bytes.
    pub limit_bytes: u64,
}

/// A limit of memory, and the passes that it refused.
pub struct Memory {
    limit: ByteSize,
    weights: u64,
    /// The passes refused so far.
    pub refused: Vec<Refused>,
}

impl Memory {
    /// A limit of the weights, `weights` bytes, and a pass together.
    pub fn new(limit: ByteSize, weights: u64) -> Self {
        Memory {
            limit,
            weights,
            refused: Vec::new(),
        }
    }

    /// Memory of the weights and a pass of `bytes`; true if it is within the limit.
    pub fn needed(&self, bytes: u64) -> (ByteSize, bool) {
        let needed = ByteSize(self.weights + bytes);
        (needed, needed <= self.limit)
    }

    /// True if a pass of `bytes` fits; if not, logs it and adds it to `refused`.
    pub fn fits(&mut self, what: &str, method: &str, length: usize, bytes: u64) -> bool {
        let (needed, fits) = self.needed(bytes);
        if fits {
            return true;
        }
        log::warn!(
            "refused: {what} of method \"{method}\" at {length} tokens needs about {needed}, the limit \
             is {}; lower the length, hold the weights in bf16 (model.dtype), or raise the limit",
            self.limit
        );
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

/// File of a run folder with the passes that its last run refused.
const REFUSED: &str = "refused.json";

/// Writes the refused passes of a run, which its report lists, over those of an earlier run.
///
/// # Errors
/// The file cannot be written.
pub fn write(dir: &Path, refused: &[Refused]) -> Result<()> {
    let path = dir.join(REFUSED);
    if refused.is_empty() && !path.exists() {
        return Ok(());
    }
    write_whole(&path, serde_json::to_string_pretty(refused)?.as_bytes())
}

/// The passes that the last run of a folder refused.
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
    let line = |pass: &Refused| {
        format!(
            "- refused: {} at {} tokens needs about {}, the limit was {}\n",
            pass.method,
            pass.length,
            ByteSize(pass.needed_bytes),
            ByteSize(pass.limit_bytes)
        )
    };
    let of_what = refused.iter().filter(|pass| pass.what == what);
    let lines: String = of_what.map(line).collect();
    if lines.is_empty() {
        lines
    } else {
        format!("\n{lines}")
    }
}
