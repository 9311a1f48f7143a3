//! What can be wrong with a method's name, its options, or the model it is asked about.

/// Why a frequency method gave no [`Spectrum`](crate::Spectrum).
#[derive(Debug, thiserror::Error)]
pub enum RopeError {
    /// No method has this name.
    #[error("there is no rope method `{kind}`; set kind to one of: {}", known.join(", "))]
    UnknownMethod {
        /// The name asked for.
        kind: String,
        /// Every name there is.
        known: Vec<&'static str>,
    },

    /// The options are not what the method takes: an unknown or missing key, or a value of the wrong type.
    #[error("rope method `{method}`: {reason}; {}", takes(valid))]
    Options {
        /// The method.
        method: &'static str,
        /// What deserializing the options says, with the key and the value.
        reason: serde_json::Error,
        /// The options that the method takes.
        valid: Vec<&'static str>,
    },

    /// A key is missing that this combination of options needs.
    #[error("rope method `{method}`: `{key}` is missing; {remedy}")]
    Missing {
        /// The method.
        method: &'static str,
        /// The missing key.
        key: &'static str,
        /// What to do.
        remedy: &'static str,
    },

    /// Two options exclude each other.
    #[error(
        "rope method `{method}`: `{key}` = {value} and `{other}` = {other_value} exclude each other; {remedy}"
    )]
    Conflict {
        /// The method.
        method: &'static str,
        /// One key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The other key.
        other: &'static str,
        /// The other key's value.
        other_value: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A value is out of range.
    #[error("rope method `{method}`: `{key}` is {value}, but must be {rule}; change it")]
    Value {
        /// The method.
        method: &'static str,
        /// The key, with an index for an element of a list.
        key: String,
        /// The value given.
        value: String,
        /// What it must be.
        rule: String,
    },

    /// An option names a file, and the file has not been read yet.
    #[error(
        "rope method `{method}`: `{key}` = {path:?} has not been read; resolve the options before asking for a spectrum"
    )]
    Unresolved {
        /// The method.
        method: &'static str,
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: String,
    },

    /// A file that an option names cannot be used.
    #[error("rope method `{method}`: `{key}` = {path:?}: {reason}")]
    File {
        /// The method.
        method: &'static str,
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// The model's geometry or the lengths are impossible.
    #[error("rope geometry: `{key}` is {value}, but must be {rule}; check the model's config.json")]
    Geometry {
        /// The field of [`Rope`](crate::Rope) or [`Length`](crate::Length).
        key: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: String,
    },
}

fn takes(valid: &[&str]) -> String {
    if valid.is_empty() {
        "it takes no options, so remove them".to_owned()
    } else {
        format!("it takes: {}", valid.join(", "))
    }
}
