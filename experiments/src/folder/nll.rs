//! Per-token losses of passes, as safetensors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::files::write_whole;

/// The losses of a pass, and its cost.
pub struct PassLosses {
    /// For each window the losses of positions `1..n`, nats.
    pub nll: Vec<Vec<f32>>,
    /// Time of the pass.
    pub seconds: f64,
    /// Peak memory, bytes.
    pub peak_bytes: usize,
}

/// The folder `nll/` of a run folder; nothing is written for a run in memory.
pub struct NllFiles {
    dir: Option<PathBuf>,
}

impl NllFiles {
    /// The files of the run folder `dir`; `None` for a run in memory.
    pub fn new(dir: Option<&Path>) -> Self {
        NllFiles {
            dir: dir.map(Path::to_owned),
        }
    }

    /// File of a pass, relative to the run folder.
    pub fn name(pass_key: &str) -> String {
        format!("nll/{}.safetensors", &pass_key[..24])
    }

    /// Writes the losses of a pass: `nll` `[windows, n - 1]` (nats, of positions `1..n`),
    /// `window_start` `[windows]` and `document_start` `[documents]` (offsets in the token stream,
    /// from which document and position of each loss follow).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(
        &self,
        pass_key: &str,
        starts: &[usize],
        document_start: &[usize],
        losses: &PassLosses,
    ) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let scored = losses.nll.first().map_or(0, Vec::len);
        let bytes_of = |offsets: &[usize]| -> Vec<u8> {
            let words = offsets.iter().map(|&offset| offset as u64);
            words.flat_map(u64::to_le_bytes).collect()
        };
        let values = losses.nll.iter().flatten();
        let nll: Vec<u8> = values.flat_map(|x| x.to_le_bytes()).collect();
        let (windows, documents) = (bytes_of(starts), bytes_of(document_start));
        let view = |dtype, shape: Vec<usize>, bytes| {
            TensorView::new(dtype, shape, bytes).context("losses as safetensors")
        };
        let tensors = [
            ("nll", view(Dtype::F32, vec![starts.len(), scored], &nll)?),
            (
                "window_start",
                view(Dtype::U64, vec![starts.len()], &windows)?,
            ),
            (
                "document_start",
                view(Dtype::U64, vec![document_start.len()], &documents)?,
            ),
        ];
        let metadata = [
            ("pass", pass_key.to_owned()),
            ("seconds", losses.seconds.to_string()),
            ("peak_bytes", losses.peak_bytes.to_string()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let bytes = safetensors::serialize(tensors, Some(metadata.into_iter().collect()))?;
        let path = dir.join(Self::name(pass_key));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        write_whole(&path, &bytes)
    }

    /// The losses of a pass over windows of `length` tokens, at least 2, if an earlier run wrote
    /// them.
    pub fn read(&self, pass_key: &str, windows: usize, length: usize) -> Option<PassLosses> {
        let bytes = std::fs::read(self.dir.as_ref()?.join(Self::name(pass_key))).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let metadata = header.metadata().as_ref()?;
        if metadata.get("pass")? != pass_key {
            return None;
        }
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let nll = tensors.tensor("nll").ok()?;
        if nll.shape() != [windows, length - 1] || nll.dtype() != Dtype::F32 {
            return None;
        }
        let values = nll.data().as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Some(PassLosses {
            nll: values.chunks(length - 1).map(<[f32]>::to_vec).collect(),
            seconds: metadata.get("seconds")?.parse().ok()?,
            peak_bytes: metadata.get("peak_bytes")?.parse().ok()?,
        })
    }
}
