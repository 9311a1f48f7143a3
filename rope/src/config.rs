//! The `rope` table of an experiment config.

use serde::{Deserialize, Serialize};

use crate::{Length, Options, Rope, RopeError, Spectrum, method};

/// A method and its options, e.g. `rope = { kind = "yarn", factor = 4.0 }`. The default is `none`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// The method's name.
    pub kind: String,
    /// Its options: every other key of the table, checked by the method.
    #[serde(flatten)]
    pub options: Options,
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self {
            kind: "none".to_owned(),
            options: Options::new(),
        }
    }
}

impl RopeConfig {
    /// Replaces options that name a file by what the file says, so that the config stands alone afterwards.
    ///
    /// # Errors
    /// The method is unknown, or its file is missing or unusable.
    pub fn resolve(&mut self) -> Result<(), RopeError> {
        method(&self.kind)?.resolve(&mut self.options)
    }

    /// The spectrum for a model and lengths: `rope.dim / 2` frequencies, in radians per position.
    ///
    /// # Errors
    /// The method is unknown, its options are wrong or not resolved, or `rope` or `length` is impossible.
    pub fn spectrum(&self, rope: &Rope, length: Length) -> Result<Spectrum, RopeError> {
        method(&self.kind)?.spectrum(rope, length, &self.options)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_stand_beside_kind() {
        let text = r#"{"kind":"yarn","factor":4.0,"ramp":"paper"}"#;
        let config: RopeConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.kind, "yarn");
        assert_eq!(config.options["factor"], json!(4.0));
        assert_eq!(config.options.len(), 2);
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }

    #[test]
    fn default_is_none() {
        let text = serde_json::to_string(&RopeConfig::default()).unwrap();
        assert_eq!(text, r#"{"kind":"none"}"#);
    }

    #[test]
    fn unknown_kind_lists_the_known_ones() {
        let mut config = RopeConfig {
            kind: "yarm".to_owned(),
            options: Options::new(),
        };
        let message = config.resolve().unwrap_err().to_string();
        assert!(message.contains("`yarm`"), "{message}");
        assert!(
            message.contains("ntk_by_parts, yarn, longrope"),
            "{message}"
        );
    }
}
