//! Reading and range-checking the options of a variant.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{OptionError, Variant};

/// A variant's options as they stand in a config, not yet checked.
pub type Options = serde_json::Map<String, Value>;

/// Reads the options into a variant's own type, which must deny unknown fields.
///
/// # Errors
/// [`OptionError::Options`] names the key that is unknown, missing or of the wrong type;
/// [`OptionError::Value`] a number that is not finite.
pub fn parse<T: DeserializeOwned>(
    variant: &(impl Variant + ?Sized),
    options: &Options,
) -> Result<T, OptionError> {
    // A config's `nan` or `inf` arrives as null, which an optional field reads as "not given".
    if let Some((key, _)) = options.iter().find(|(_, value)| value.is_null()) {
        return Err(OptionError::Value {
            variant: variant.name(),
            key: key.clone(),
            value: "null, nan or infinite".to_owned(),
            rule: "a finite number, or left out".to_owned(),
        });
    }
    serde_json::from_value(Value::Object(options.clone())).map_err(|reason| OptionError::Options {
        variant: variant.name(),
        reason,
        valid: variant.options().iter().map(|option| option.name).collect(),
    })
}

/// Checks that a number is finite and at least 1.
///
/// # Errors
/// [`OptionError::Value`].
pub fn at_least_one(variant: &'static str, key: &str, value: f64) -> Result<f64, OptionError> {
    number(variant, key, value, value >= 1.0, "finite and at least 1")
}

/// Checks that a number is finite and above 0.
///
/// # Errors
/// [`OptionError::Value`].
pub fn positive(variant: &'static str, key: &str, value: f64) -> Result<f64, OptionError> {
    number(variant, key, value, value > 0.0, "finite and above 0")
}

fn number(
    variant: &'static str,
    key: &str,
    value: f64,
    good: bool,
    rule: &str,
) -> Result<f64, OptionError> {
    if value.is_finite() && good {
        return Ok(value);
    }
    Err(OptionError::Value {
        variant,
        key: key.to_owned(),
        value: value.to_string(),
        rule: rule.to_owned(),
    })
}
