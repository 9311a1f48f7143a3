//! What to change in a config or on the command line when the library refuses something; its errors
//! name neither.

use longspan_model::{DecodeError, ModelError};

/// The remedy for an error, where an option of the program is one.
pub fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
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
    })
}
