//! Errors of names, options and model geometry.

/// A variant is unknown, or refuses its options or the model.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// No variant has this name.
    #[error("`{kind}` is not known; there are: {}", known.join(", "))]
    Unknown {
        /// The name asked for.
        kind: String,
        /// All names of the axis.
        known: Vec<&'static str>,
    },

    /// An unknown or missing key, or a value of the wrong type.
    #[error("`{variant}`: {reason}; {}", takes(valid))]
    Options {
        /// The variant.
        variant: &'static str,
        /// Serde's message, with the key and the value.
        reason: serde_json::Error,
        /// The options that the variant takes.
        valid: Vec<&'static str>,
    },

    /// This combination of options needs another key.
    #[error("`{variant}`: `{key}` is missing; {remedy}")]
    Missing {
        /// The variant.
        variant: &'static str,
        /// The missing key.
        key: &'static str,
        /// What to do.
        remedy: &'static str,
    },

    /// Two options exclude each other.
    #[error(
        "`{variant}`: `{key}` = {value} and `{other}` = {other_value} exclude each other; {remedy}"
    )]
    Conflict {
        /// The variant.
        variant: &'static str,
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
    #[error("`{variant}`: `{key}` is {value}, but must be {rule}; change it")]
    Value {
        /// The variant.
        variant: &'static str,
        /// The key, with an index for an element of a list.
        key: String,
        /// The value given.
        value: String,
        /// What it must be.
        rule: String,
    },

    /// The options are right, but not for this model.
    #[error("`{variant}`: {reason}")]
    Misfit {
        /// The variant.
        variant: &'static str,
        /// Key, both values, and what to do.
        reason: String,
    },

    /// An option names a file that was not read yet; see [`Axis::resolve`](crate::Axis::resolve).
    #[error("`{variant}`: `{key}` = {path:?} has not been read; resolve the options first")]
    Unresolved {
        /// The variant.
        variant: &'static str,
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: String,
    },

    /// A file that an option names cannot be used.
    #[error("`{variant}`: `{key}` = {path:?}: {reason}")]
    File {
        /// The variant.
        variant: &'static str,
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// Runs of layers that do not divide the layers of the model.
    #[error(
        "layers: the runs cover {given} layers, the model has {layers}; runs repeat over the \
         model, so their sum must divide {layers}"
    )]
    Runs {
        /// Layers that the runs cover.
        given: usize,
        /// Layers of the model.
        layers: usize,
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
