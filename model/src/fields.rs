//! Reads the fields of a `config.json`, one by one, and says which one is wrong.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ModelError;

/// The fields of a `config.json`. Every method that takes a key marks the field as known;
/// [`unknown`](ConfigFields::unknown) lists the others.
pub struct ConfigFields {
    path: PathBuf,
    map: Map<String, Value>,
    known: BTreeSet<&'static str>,
}

impl ConfigFields {
    /// Largest width or vocabulary that is accepted; products of two do not overflow.
    pub const LARGEST: u64 = 1 << 24;

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a JSON object.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let map = serde_json::from_str(&text).map_err(|e| ModelError::Json {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        Ok(ConfigFields {
            path: path.to_owned(),
            map,
            known: BTreeSet::new(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error that quotes a field and its value; `expected` says what is supported.
    pub fn error(&self, key: &'static str, expected: impl Into<String>) -> ModelError {
        ModelError::ConfigValue {
            path: self.path.clone(),
            key,
            value: self.map.get(key).unwrap_or(&Value::Null).to_string(),
            expected: expected.into(),
        }
    }

    /// A field that may be absent or null.
    pub fn optional(&mut self, key: &'static str) -> Option<&Value> {
        self.known.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is missing.
    pub fn value(&mut self, key: &'static str) -> Result<&Value, ModelError> {
        self.known.insert(key);
        self.map.get(key).ok_or_else(|| ModelError::Json {
            path: self.path.clone(),
            message: format!("field {key} is missing; the model's shape depends on it"),
        })
    }

    /// A whole number.
    ///
    /// # Errors
    /// It is missing, not a whole number or outside `range`.
    pub fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<usize, ModelError> {
        match self.value(key)?.as_u64() {
            Some(n) if range.contains(&n) => Ok(n as usize),
            _ => {
                let (from, to) = (range.start(), range.end());
                Err(self.error(
                    key,
                    format!("a whole number from {from} to {to} is expected"),
                ))
            }
        }
    }

    /// A finite number above a bound.
    ///
    /// # Errors
    /// It is missing, not a number or not above `bound`.
    pub fn number(&mut self, key: &'static str, bound: f64) -> Result<f64, ModelError> {
        match self.value(key)?.as_f64() {
            Some(x) if x.is_finite() && x > bound => Ok(x),
            _ => Err(self.error(key, format!("a number above {bound} is expected"))),
        }
    }

    /// Checks a field that may be absent but has one supported value.
    ///
    /// # Errors
    /// It has another value.
    pub fn fixed(
        &mut self,
        key: &'static str,
        only: &Value,
        expected: &'static str,
    ) -> Result<(), ModelError> {
        self.known.insert(key);
        // 1 and 1.0 are the same number.
        let same = |value: &Value| value.as_f64().is_some() && value.as_f64() == only.as_f64();
        match self.map.get(key) {
            Some(value) if value != only && !same(value) => Err(self.error(key, expected)),
            _ => Ok(()),
        }
    }

    /// Marks fields as known that have no effect on a forward pass.
    pub fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Fields that nothing has asked for, in the order of the file.
    pub fn unknown(&self) -> Vec<String> {
        let unknown = self
            .map
            .keys()
            .filter(|key| !self.known.contains(key.as_str()));
        unknown.cloned().collect()
    }
}
