//! A method's options: how they are documented, read and range-checked.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{FrequencyMethod, RopeError};

/// A method's options as they stand in a config, not yet checked.
pub type Options = serde_json::Map<String, Value>;

/// One option of a method, for help texts.
pub struct OptionDoc {
    /// The key in TOML.
    pub name: &'static str,
    /// The default as a TOML literal, or `required`, or `optional`.
    pub default: &'static str,
    /// What the option does.
    pub meaning: &'static str,
}

/// Reads the options into the method's own type, which must deny unknown fields.
pub(crate) fn parse<T: DeserializeOwned>(
    method: &dyn FrequencyMethod,
    options: &Options,
) -> Result<T, RopeError> {
    // A config's `nan` or `inf` arrives as null, which an optional field would take for "not given".
    if let Some((key, _)) = options.iter().find(|(_, value)| value.is_null()) {
        return Err(RopeError::Value {
            method: method.name(),
            key: key.clone(),
            value: "null, nan or infinite".to_owned(),
            rule: "a finite number, or left out".to_owned(),
        });
    }
    serde_json::from_value(Value::Object(options.clone())).map_err(|reason| RopeError::Options {
        method: method.name(),
        reason,
        valid: method.options().iter().map(|option| option.name).collect(),
    })
}

/// Refuses anything but a finite number of at least 1.
pub(crate) fn at_least_one(method: &'static str, key: &str, value: f64) -> Result<f64, RopeError> {
    if value.is_finite() && value >= 1.0 {
        return Ok(value);
    }
    Err(RopeError::Value {
        method,
        key: key.to_owned(),
        value: value.to_string(),
        rule: "finite and at least 1".to_owned(),
    })
}

/// Refuses anything but a finite number above 0.
pub(crate) fn positive(method: &'static str, key: &str, value: f64) -> Result<f64, RopeError> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(RopeError::Value {
        method,
        key: key.to_owned(),
        value: value.to_string(),
        rule: "finite and above 0".to_owned(),
    })
}
