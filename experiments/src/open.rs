//! Opens models and vocabularies by the names that configs give them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use longspan_data::Tokenizer;
use longspan_model::{Checkpoint, Transformer, WeightType, shape, write_random_checkpoint};

/// The shipped model.
pub const TINY: &str = "builtin:tiny";
/// The smallest shape with random weights.
pub const RANDOM: &str = "builtin:random";

/// The vocabulary of a model cannot be told from its folder.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// No vocabulary file.
    #[error("{folder}: no .tiktoken file; put qwen.tiktoken there, or name a vocabulary file")]
    Missing {
        /// The folder.
        folder: String,
    },

    /// Several vocabulary files.
    #[error("{} and {}: two vocabularies; name one of them", first.display(), second.display())]
    Several {
        /// One file.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
}

/// Opens a model's folder without reading its weights; the built-in ones are written to a temporary
/// folder.
///
/// # Errors
/// No such folder, or one that is not a checkpoint.
pub fn checkpoint(path: &str) -> Result<Checkpoint> {
    if path.starts_with("builtin:") {
        // The files stay mapped after the folder is gone.
        let folder =
            tempfile::tempdir().with_context(|| format!("a temporary folder for {path}"))?;
        write_builtin(path, folder.path())?;
        return Ok(Checkpoint::open(folder.path())?);
    }
    ensure_folder(path)?;
    let checkpoint = Checkpoint::open(Path::new(path))?;
    for field in &checkpoint.unknown_fields {
        log::warn!("{path}/config.json: field {field} is not known and is ignored");
    }
    Ok(checkpoint)
}

fn write_builtin(path: &str, folder: &Path) -> Result<()> {
    match path {
        TINY => {
            let tiny = longspan_data::TINY;
            for (name, bytes) in [
                ("config.json", tiny.config),
                ("model.safetensors", tiny.weights),
            ] {
                let file = folder.join(name);
                std::fs::write(&file, bytes).with_context(|| file.display().to_string())?;
            }
        }
        RANDOM => {
            let config = shape("micro").expect("a registered shape");
            write_random_checkpoint(folder, &config, WeightType::F32, 0, usize::MAX)?;
        }
        _ => bail!("model path {path} is not known; there are {TINY} and {RANDOM}"),
    }
    Ok(())
}

fn ensure_folder(path: &str) -> Result<()> {
    ensure!(
        Path::new(path).is_dir(),
        "{path}: no such folder; a model is a local Hugging Face folder with config.json and safetensors, or \
         {TINY}"
    );
    Ok(())
}

/// Reads the weights of an opened folder onto a device. Weights are held in `weights` (`None`: as
/// stored), activations computed in `activations`.
///
/// # Errors
/// A value that is not finite, or that does not fit the type; a type that the device lacks.
pub fn model(
    checkpoint: Checkpoint,
    (weights, activations): (Option<WeightType>, WeightType),
    device: &Device,
) -> Result<Transformer> {
    let model = Transformer::from_checkpoint(checkpoint, weights, device)?;
    Ok(model.with_activations(activations)?)
}

/// The vocabulary of a model: the file named, or the one `.tiktoken` file in its folder.
///
/// # Errors
/// No vocabulary file, several ([`VocabularyError`]), or a damaged one.
pub fn tokenizer(model: &str, file: Option<&Path>) -> Result<Tokenizer> {
    if let Some(file) = file {
        return Ok(Tokenizer::from_file(file)?);
    }
    match model {
        TINY => {
            let name = Path::new("builtin:tiny/qwen.tiktoken");
            return Ok(Tokenizer::from_bytes(name, longspan_data::TINY.vocabulary)?);
        }
        RANDOM => return Ok(Tokenizer::bytes()),
        _ => {}
    }
    ensure_folder(model)?;
    let mut found: Vec<PathBuf> = std::fs::read_dir(model)
        .with_context(|| model.to_owned())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "tiktoken"))
        .collect();
    found.sort();
    match found.as_slice() {
        [file] => Ok(Tokenizer::from_file(file)?),
        [] => {
            let folder = model.to_owned();
            Err(VocabularyError::Missing { folder }.into())
        }
        [first, second, ..] => {
            let (first, second) = (first.clone(), second.clone());
            Err(VocabularyError::Several { first, second }.into())
        }
    }
}
