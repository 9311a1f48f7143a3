//! Options of the command line and keys of a config that help with an error of the library, whose
//! messages name neither.

use longspan::folder::FolderError;
use longspan::generation::CacheTooLarge;
use longspan::measure::AllRefused;
use longspan::open::VocabularyError;
use longspan_model::{DecodeError, ModelError};

/// The remedy for an error, where an option of the program is one.
pub fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    // `is` also finds an error that is the context of another.
    if error.is::<FolderError>() {
        return Some("--out names another folder");
    }
    error.chain().find_map(of_cause)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if cause.is::<AllRefused>() {
        return Some("--memory-limit sets another limit");
    }
    if cause.is::<VocabularyError>() {
        return Some("model.tokenizer in a config and --tokenizer on the command line name a file");
    }
    if cause.is::<CacheTooLarge>() {
        return Some(
            "--max-new-tokens, --max-window-size of chat and --tokens of profile set the number of \
             tokens, --kv the type",
        );
    }
    if let Some(DecodeError::Cache { .. }) = cause.downcast_ref() {
        return Some("give --kv f32, or --device cpu");
    }
    match cause.downcast_ref()? {
        ModelError::Device { .. } => Some(
            "give another type (model.dtype and model.activations in a config, --dtype and \
             --activations on the command line), or --device cpu",
        ),
        ModelError::PackedType { .. } => Some(
            "leave dtype out (model.dtype in a config, --dtype on the command line), or give an \
             unquantised checkpoint",
        ),
        _ => None,
    }
}
