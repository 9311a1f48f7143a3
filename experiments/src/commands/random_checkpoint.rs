//! `longspan random-checkpoint`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use longspan_data::Tokenizer;
use longspan_model::{Architecture, Quantization, Shape, WeightType, write_random_checkpoint};

use longspan::folder::write_whole;

/// Size of the shards, in bytes.
pub const SHARD_BYTES: usize = 2 << 30;

/// Options of `random-checkpoint`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder to write
    dir: PathBuf,
    /// Size of the model: micro, qwen-1.8b, qwen-7b, qwen-14b or qwen-72b
    #[arg(long, value_parser = shape, required_unless_present = "config")]
    shape: Option<Shape>,
    /// config.json of another size
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    config: Option<PathBuf>,
    /// Type of the stored weights: f32, bf16 or f16
    #[arg(long, default_value = "bf16")]
    dtype: WeightType,
    /// Pack the matrices of the layers as GPTQ does: int4 or int8, in groups of 128
    #[arg(long, value_name = "TYPE", value_parser = quantization)]
    quant: Option<Quantization>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Rows of embedding and head [default: the shape's own]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    vocab_size: Option<u32>,
    /// Vocabulary file to copy into the folder
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

pub fn shape(name: &str) -> Result<Shape, String> {
    match name {
        "micro" => Ok(Shape::Micro),
        "qwen-1.8b" => Ok(Shape::Qwen1_8B),
        "qwen-7b" => Ok(Shape::Qwen7B),
        "qwen-14b" => Ok(Shape::Qwen14B),
        "qwen-72b" => Ok(Shape::Qwen72B),
        _ => Err("the shapes are micro, qwen-1.8b, qwen-7b, qwen-14b, qwen-72b".to_owned()),
    }
}

fn quantization(name: &str) -> Result<Quantization, String> {
    match name {
        "int4" => Ok(packed(4)),
        "int8" => Ok(packed(8)),
        _ => Err("the types are int4 and int8".to_owned()),
    }
}

/// Packed in groups of 128, as the published checkpoints are.
pub fn packed(bits: usize) -> Quantization {
    Quantization {
        bits,
        group_size: Some(128),
        desc_act: false,
    }
}

/// Writes the checkpoint, into a folder that holds none.
pub fn random_checkpoint(args: Args) -> Result<()> {
    for entry in std::fs::read_dir(&args.dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "config.json" || name.contains(".safetensors") {
            bail!(
                "{}: there is a checkpoint here ({name}); give another folder",
                args.dir.display()
            );
        }
    }
    let vocabulary = match &args.tokenizer {
        Some(file) => {
            Tokenizer::from_file(file)?;
            Some(std::fs::read(file).with_context(|| file.display().to_string())?)
        }
        None => None,
    };
    let mut config = match (&args.config, args.shape) {
        (Some(file), _) => Architecture::from_file(file)?.0,
        (None, shape) => shape.unwrap_or(Shape::Micro).config(),
    };
    if let Some(size) = args.vocab_size {
        config.vocab_size = size as usize;
    }
    if let Some(quantization) = args.quant {
        config.quantization = Some(quantization);
        let from = args.config.as_deref().unwrap_or(&args.dir);
        config.check_packing(from)?;
    }
    write_random_checkpoint(&args.dir, &config, args.dtype, args.seed, SHARD_BYTES)?;
    if let Some(bytes) = vocabulary {
        write_whole(&args.dir.join("qwen.tiktoken"), &bytes)?;
    }
    log::info!("wrote {}", args.dir.display());
    Ok(())
}
