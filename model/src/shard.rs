//! A safetensors file of a checkpoint, mapped into memory.

use std::fs::File;
use std::path::PathBuf;

use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};

use crate::ModelError;

pub(crate) struct ShardFile {
    pub path: PathBuf,
    map: Mmap,
}

impl ShardFile {
    pub fn open(path: PathBuf) -> Result<Self, ModelError> {
        let file = File::open(&path).map_err(ModelError::io(&path))?;
        // SAFETY: the map is read only. As with every mapped file, no process may truncate it.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(&path))?;
        Ok(ShardFile { path, map })
    }

    pub fn parse(&self) -> Result<SafeTensors<'_>, ModelError> {
        if self.map.starts_with(b"version https://git-lfs") {
            let path = self.path.clone();
            return Err(ModelError::LfsPointer { path });
        }
        SafeTensors::deserialize(&self.map).map_err(self.invalid())
    }

    pub fn invalid(&self) -> impl Fn(SafeTensorError) -> ModelError {
        |error| ModelError::Safetensors {
            path: self.path.clone(),
            message: error.to_string(),
        }
    }

    /// Drops the pages under `bytes` from memory; they are read again if needed.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        {
            let offset = bytes.as_ptr() as usize - self.map.as_ptr() as usize;
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is file-backed and read only, so dropped pages are read again.
            let _ = unsafe { self.map.unchecked_advise_range(advice, offset, bytes.len()) };
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}
