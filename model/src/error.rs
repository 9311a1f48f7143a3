//! Errors of checkpoints, models and training.

use std::path::PathBuf;

/// A broken file or an input that does not fit. Messages name the file, the tensor or key, and both
/// values.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A kernel did not run, or the device is broken.
    #[error(transparent)]
    Kernel(#[from] longspan_kernels::KernelError),
    /// The device does not support the model or a type.
    #[error("a model with {what} in {dtype} on this device: {reason}")]
    Device {
        /// `weights` or `activations`.
        what: &'static str,
        /// Their type.
        dtype: &'static str,
        /// What the device lacks.
        reason: longspan_kernels::KernelError,
    },
    /// A file could not be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The folder holds no checkpoint.
    #[error(
        "{folder}: no model.safetensors and no model.safetensors.index.json; give a Hugging Face folder with \
         safetensors (a folder of pytorch_model*.bin files has to be converted first)"
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds a single file and an index of shards.
    #[error("{index} and {single}: two checkpoints in one folder; remove one of them")]
    TwoCheckpoints {
        /// The index of the shards.
        index: PathBuf,
        /// The single file.
        single: PathBuf,
    },
    /// `config.json` or the index is not valid, or lacks a field.
    #[error("{path}: {message}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A field of `config.json` has a value that is not supported.
    #[error("{path}: {key} = {value}, but {expected}")]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// The field.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        expected: String,
    },
    /// A shard that the index names is missing.
    #[error("{path}: missing, but {index} places {tensor} in it; fetch the shard again")]
    MissingShard {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
        /// One of its tensors.
        tensor: String,
    },
    /// A pointer of Git LFS instead of the file.
    #[error("{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its folder")]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors file is broken.
    #[error("{path}: not a valid safetensors file ({message}); fetch it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A tensor of the model is in no file.
    #[error("{place}: tensor {tensor} is missing; config.json asks for it")]
    MissingTensor {
        /// The file or folder searched.
        place: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the model does not have.
    #[error("{path}: tensor {tensor} is not part of the model that config.json describes")]
    UnusedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is in two files.
    #[error("tensor {tensor} is in {first} and in {second}; remove one of them")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The shape of a tensor differs from the one that `config.json` implies.
    #[error("{path}: tensor {tensor} has shape {found:?}, config.json implies {expected:?}")]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the config implies.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not supported.
    #[error("{path}: tensor {tensor} is {found}; {expected}")]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Type in the file.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A packed matrix contradicts `config.json`.
    #[error(
        "{path}: tensor {tensor} {message}; the file is damaged, or config.json is another model's"
    )]
    Packing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        message: String,
    },
    /// A type was requested, but the matrices are packed.
    #[error(
        "{folder}: dtype {dtype} is requested, but the matrices of this checkpoint are packed by GPTQ, \
         and only their own type is supported"
    )]
    PackedType {
        /// The checkpoint.
        folder: PathBuf,
        /// The type requested.
        dtype: &'static str,
    },
    /// Packed matrices cannot be trained.
    #[error("{folder}: a GPTQ checkpoint cannot be trained")]
    PackedTraining {
        /// The checkpoint.
        folder: PathBuf,
    },
    /// A weight is not a finite number.
    #[error("{path}: tensor {tensor} holds {value} at flat index {index}; the file is damaged")]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Offset in elements.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A weight overflows the type requested.
    #[error(
        "{path}: tensor {tensor} holds {value} at flat index {index}, which overflows {dtype}; a wider \
         type is needed"
    )]
    Overflow {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Offset in elements.
        index: usize,
        /// The value.
        value: f32,
        /// The type requested.
        dtype: &'static str,
    },
    /// The optimiser's state cannot be read or written.
    #[error("{path}: {message}")]
    OptimizerState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The method does not fit the model.
    #[error(transparent)]
    Plan(#[from] longspan_attention::PlanError),
    /// Training diverged.
    #[error(
        "the loss is {loss}, the norm of its gradient {gradient_norm}; lower the learning rate or warm up longer"
    )]
    Diverged {
        /// The loss, nats.
        loss: f64,
        /// Norm of the gradient.
        gradient_norm: f64,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token id {id} at position {position} is outside the model's vocabulary of {vocabulary}; \
         the tokens come from another tokenizer"
    )]
    Token {
        /// The id.
        id: u32,
        /// Its position in the sequence.
        position: usize,
        /// `vocab_size` of the model.
        vocabulary: usize,
    },
}

impl ModelError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ModelError {
        let path = path.to_owned();
        move |reason| ModelError::Io { path, reason }
    }
}
