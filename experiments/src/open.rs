//! Opens what a config or a command line names: models and vocabularies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use longspan_data::Tokenizer;
use longspan_model::{Checkpoint, Qwen, Shape, WeightType, write_random_checkpoint};

/// The model that `builtin:random` names: the smallest shape, random weights.
const RANDOM: &str = "builtin:random";

/// Opens a model's folder without reading its weights; `builtin:random` is made on the spot.
///
/// # Errors
/// Whatever is wrong with the folder.
pub fn checkpoint(path: &str) -> Result<Checkpoint> {
    if path == RANDOM {
        // The files stay mapped after the folder is gone.
        let folder = tempfile::tempdir().context("a temporary folder for builtin:random")?;
        let config = Shape::Micro.config();
        write_random_checkpoint(folder.path(), &config, WeightType::F32, 0, usize::MAX)?;
        return Ok(Checkpoint::open(folder.path())?);
    }
    ensure!(
        !path.starts_with("builtin:"),
        "model path {path} is not known; there is {RANDOM}"
    );
    ensure_folder(path)?;
    let checkpoint = Checkpoint::open(Path::new(path))?;
    for field in &checkpoint.unknown_fields {
        crate::tell(format_args!(
            "warning: {path}/config.json: field {field} is not known and is ignored"
        ));
    }
    Ok(checkpoint)
}

fn ensure_folder(path: &str) -> Result<()> {
    ensure!(
        Path::new(path).is_dir(),
        "{path}: no such folder; model.path is a local Hugging Face folder with config.json and safetensors, or {RANDOM}"
    );
    Ok(())
}

/// Reads the weights of an opened folder.
///
/// # Errors
/// A value that is not finite, or that does not fit the type.
pub fn model(checkpoint: Checkpoint, dtype: Option<WeightType>) -> Result<Qwen> {
    Ok(Qwen::from_checkpoint(checkpoint, dtype, &Device::flex())?)
}

/// The vocabulary of a model: the file named, or the one `.tiktoken` file in its folder.
///
/// # Errors
/// No file, several, or a broken one.
pub fn tokenizer(model: &str, file: Option<&Path>) -> Result<Tokenizer> {
    if let Some(file) = file {
        return Ok(Tokenizer::from_file(file)?);
    }
    if model == RANDOM {
        return Ok(Tokenizer::bytes());
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
        [] => bail!(
            "{model}: no .tiktoken file; put qwen.tiktoken there, or name one: model.tokenizer in a config, --tokenizer on the command line"
        ),
        [a, b, ..] => bail!(
            "{} and {}: two vocabularies; name one: model.tokenizer in a config, --tokenizer on the command line",
            a.display(),
            b.display()
        ),
    }
}
