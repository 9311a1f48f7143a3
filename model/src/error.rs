//! What can be wrong with a checkpoint or its input.

use std::path::PathBuf;

/// A user's mistake, or a broken file. Messages name the file and the tensor or key, and both values.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The device does not run the model.
    #[error(
        "a model with {what} in {dtype}, on this device: {reason}; if it is the type, give another (model.dtype and \
         model.activations in a config, --dtype and --activations on the command line), else --device cpu"
    )]
    Device {
        /// Weights or activations.
        what: &'static str,
        /// Their type.
        dtype: &'static str,
        /// What is missing.
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
    #[error(
        "{index} and {single}: two checkpoints in one folder; remove the one that does not belong"
    )]
    TwoCheckpoints {
        /// The index of the shards.
        index: PathBuf,
        /// The single file.
        single: PathBuf,
    },
    /// `config.json` or the index is not what it should be.
    #[error("{path}: {message}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A field of `config.json` has a value that this program does not implement.
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
    /// A shard that the index names is not there.
    #[error("{path}: missing, but {index} places {tensor} in it; fetch the shard again")]
    MissingShard {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
        /// One of its tensors.
        tensor: String,
    },
    /// A stand-in of Git LFS instead of the file itself.
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
    #[error("tensor {tensor} is in {first} and in {second}; remove the file that does not belong")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A tensor has another shape than `config.json` implies.
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
    /// A packed matrix is not put together as `config.json` says.
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
    /// A type was asked for, but the matrices are packed.
    #[error(
        "{folder}: dtype {dtype} is asked for (model.dtype in a config, --dtype of score), but this checkpoint's matrices are \
         packed by GPTQ and are held as they are; leave dtype out, or give an unquantised checkpoint"
    )]
    PackedType {
        /// The checkpoint.
        folder: PathBuf,
        /// What was asked for.
        dtype: &'static str,
    },
    /// Training cannot go on from packed matrices.
    #[error(
        "{folder}: a GPTQ checkpoint cannot be trained; give the folder that the training wrote"
    )]
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
    /// A weight does not fit the type it should be held in.
    #[error(
        "{path}: tensor {tensor} holds {value} at flat index {index}, which {dtype} cannot hold; \
         choose a wider dtype"
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
        /// The type asked for.
        dtype: &'static str,
    },
    /// The optimiser's state of a run that should go on.
    #[error("{path}: {message}")]
    OptimizerState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A method that does not fit the model.
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
    /// A token id that the model does not know.
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
