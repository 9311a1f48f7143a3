//! Options that several commands share.

use std::path::PathBuf;

use bytesize::ByteSize;
use longspan::device::DeviceName;
use longspan_model::WeightType;

/// A config with overrides.
#[derive(clap::Args)]
pub struct ConfigArgs {
    /// TOML file
    pub config: PathBuf,
    /// Override a key of the config: a dotted path, numbers for the entries of a list
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Where to compute.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: cpu, cuda, wgpu, metal or rocm; :1 and so on for another than the first;
    /// see `longspan devices`
    #[arg(long, default_value = "cpu")]
    pub device: DeviceName,
}

/// How a model is held.
#[derive(clap::Args)]
pub struct HeldArgs {
    /// Type in which weights are held: f32, bf16 or f16 [default: as stored]
    #[arg(long)]
    pub dtype: Option<WeightType>,
    /// Type of the activations, on a GPU: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub activations: WeightType,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// A model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Hugging Face folder, or builtin:tiny
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// Vocabulary file [default: the one in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub held: HeldArgs,
}

/// A method.
#[derive(clap::Args)]
pub struct MethodArgs {
    /// Key of the method, as in a [[method]] table [default: plain RoPE]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A limit of memory.
#[derive(clap::Args)]
pub struct MemoryArgs {
    /// Refuse passes that need more, as "16GiB" [default: what is free; on a GPU, none]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<ByteSize>,
}
