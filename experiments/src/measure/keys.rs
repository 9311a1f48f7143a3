//! Keys of records: digests of everything that a number depends on.

use longspan_attention::Method;
use serde_json::{Value, json};

use crate::session::Identity;

/// Raised when a change of the program changes what is computed for the same config.
const EVALUATION: u32 = 3;

/// Everything that a number depends on, apart from its cell.
pub fn model_identity(method: &Method, prefill: Option<usize>, model: &Identity) -> Value {
    json!({
        "evaluation": EVALUATION,
        "checkpoint": model.checkpoint,
        "dtype": model.dtype,
        "device": model.device,
        "method": method.settings(),
        "prefill": prefill,
    })
}

/// The key of all that a number depends on.
pub fn digest(mut identity: Value) -> String {
    // The order in which a config gives options does not change their meaning.
    identity.sort_all_objects();
    blake3::hash(identity.to_string().as_bytes())
        .to_hex()
        .to_string()
}
