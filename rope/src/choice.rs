//! A variant chosen in a config, for all layers of a model or for some of them.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{Axis, OptionError, Options, find};

/// A variant with its options: `{ kind = "yarn", factor = 4.0 }`.
pub struct Choice<A: ?Sized> {
    kind: String,
    options: Options,
    /// A variant outside the registry.
    own: Option<Arc<A>>,
}

impl<A: Axis + ?Sized> Choice<A> {
    /// The registered variant of a name. Name and options are checked when they are used.
    pub fn named(kind: &str, options: Options) -> Self {
        Choice {
            kind: kind.to_owned(),
            options,
            own: None,
        }
    }

    /// A variant outside the registry, known by its own name and settings.
    pub fn own(variant: Arc<A>) -> Self {
        Choice {
            kind: variant.name().to_owned(),
            options: variant.settings(),
            own: Some(variant),
        }
    }

    /// The variant's name.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its options, not yet checked.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The variant.
    ///
    /// # Errors
    /// [`OptionError::Unknown`].
    pub fn variant(&self) -> Result<&A, OptionError> {
        match &self.own {
            Some(own) => Ok(own),
            None => find(&self.kind),
        }
    }

    /// Replaces options that name a file by the file's content, so that the choice stands alone.
    ///
    /// # Errors
    /// The variant is unknown, or its file is missing or unusable.
    pub fn resolve(&mut self) -> Result<(), OptionError> {
        let mut options = std::mem::take(&mut self.options);
        let resolved = self.variant().and_then(|v| v.resolve(&mut options));
        self.options = options;
        resolved
    }
}

impl<A: Axis + ?Sized> Default for Choice<A> {
    fn default() -> Self {
        Choice::named(A::DEFAULT, Options::new())
    }
}

// Derives would require `A: Clone` and so on, which a trait object is not.

impl<A: ?Sized> Clone for Choice<A> {
    fn clone(&self) -> Self {
        Choice {
            kind: self.kind.clone(),
            options: self.options.clone(),
            own: self.own.clone(),
        }
    }
}

impl<A: ?Sized> PartialEq for Choice<A> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.options == other.options
    }
}

impl<A: ?Sized> fmt::Debug for Choice<A> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.options)
    }
}

impl<A: ?Sized> Serialize for Choice<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.options.len()))?;
        map.serialize_entry("kind", &self.kind)?;
        for (key, value) in &self.options {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, A: ?Sized> Deserialize<'de> for Choice<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Table {
            kind: String,
            #[serde(flatten)]
            options: Options,
        }
        let Table { kind, options } = Table::deserialize(deserializer)?;
        Ok(Choice {
            kind,
            options,
            own: None,
        })
    }
}

/// One choice for all layers, or runs of layers:
/// `{ layers = [[3, { kind = "none" }], [1, { kind = "yarn", factor = 4.0 }]] }`.
///
/// Runs repeat over the model, so the layers of one round must divide the model's.
pub struct PerLayer<A: ?Sized> {
    /// Layers in a row, and what is chosen for them; one run where all layers are alike.
    runs: Vec<(usize, Choice<A>)>,
}

impl<A: Axis + ?Sized> PerLayer<A> {
    /// The same choice in every layer.
    pub fn all(choice: Choice<A>) -> Self {
        PerLayer {
            runs: vec![(1, choice)],
        }
    }

    /// The choice, where it is the same in every layer.
    pub fn uniform(&self) -> Option<&Choice<A>> {
        match self.runs.as_slice() {
            [(_, choice)] => Some(choice),
            _ => None,
        }
    }

    /// Each choice once.
    pub fn choices(&self) -> impl Iterator<Item = &Choice<A>> {
        self.runs.iter().map(|run| &run.1)
    }

    /// The choice of each of `layers` layers, first layer first.
    ///
    /// # Errors
    /// [`OptionError::Runs`].
    pub fn of_layers(&self, layers: usize) -> Result<Vec<&Choice<A>>, OptionError> {
        let given = (self.runs.iter()).fold(0, |sum: usize, run| sum.saturating_add(run.0));
        if given == 0 || !layers.is_multiple_of(given) {
            return Err(OptionError::Runs { given, layers });
        }
        let round = || {
            let runs = self.runs.iter();
            runs.flat_map(|(count, choice)| std::iter::repeat_n(choice, *count))
        };
        Ok((0..layers / given).flat_map(|_| round()).collect())
    }

    /// [`Choice::resolve`] for each.
    ///
    /// # Errors
    /// As [`Choice::resolve`].
    pub fn resolve(&mut self) -> Result<(), OptionError> {
        self.runs.iter_mut().try_for_each(|run| run.1.resolve())
    }
}

impl<A: Axis + ?Sized> Default for PerLayer<A> {
    fn default() -> Self {
        PerLayer::all(Choice::default())
    }
}

impl<A: Axis + ?Sized> From<Choice<A>> for PerLayer<A> {
    fn from(choice: Choice<A>) -> Self {
        PerLayer::all(choice)
    }
}

impl<A: ?Sized> Clone for PerLayer<A> {
    fn clone(&self) -> Self {
        PerLayer {
            runs: self.runs.clone(),
        }
    }
}

impl<A: ?Sized> PartialEq for PerLayer<A> {
    fn eq(&self, other: &Self) -> bool {
        self.runs == other.runs
    }
}

impl<A: ?Sized> fmt::Debug for PerLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.runs.fmt(f)
    }
}

impl<A: ?Sized> Serialize for PerLayer<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [(_, choice)] = self.runs.as_slice() {
            return choice.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("layers", &self.runs)?;
        map.end()
    }
}

impl<'de, A: ?Sized> Deserialize<'de> for PerLayer<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let runs = match &value {
            Value::Object(table) if table.contains_key("layers") && !table.contains_key("kind") => {
                if table.len() > 1 {
                    return Err(D::Error::custom(
                        "layers: options stand in the runs, not next to them",
                    ));
                }
                serde_json::from_value(table["layers"].clone()).map_err(|error| {
                    D::Error::custom(format!(
                        "layers: {error}; runs of layers are such as \
                         [[3, {{ kind = \"none\" }}], [1, {{ kind = \"linear\", factor = 4.0 }}]]"
                    ))
                })?
            }
            _ => vec![(1, serde_json::from_value(value).map_err(D::Error::custom)?)],
        };
        let runs: Vec<(usize, Choice<A>)> = runs;
        if let Some(empty) = runs.iter().position(|run| run.0 == 0) {
            return Err(D::Error::custom(format!(
                "layers.{empty}: a run of 0 layers"
            )));
        }
        Ok(PerLayer { runs })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FrequencyMethod;

    type Rope = PerLayer<dyn FrequencyMethod>;

    #[test]
    fn options_stand_next_to_kind() {
        let text = r#"{"kind":"yarn","factor":4.0,"ramp":"paper"}"#;
        let choice: Choice<dyn FrequencyMethod> = serde_json::from_str(text).unwrap();
        assert_eq!(choice.kind(), "yarn");
        assert_eq!(choice.options()["factor"], json!(4.0));
        assert_eq!(choice.options().len(), 2);
        assert_eq!(serde_json::to_string(&choice).unwrap(), text);
    }

    #[test]
    fn default_is_none() {
        let text = serde_json::to_string(&Rope::default()).unwrap();
        assert_eq!(text, r#"{"kind":"none"}"#);
    }

    #[test]
    fn unknown_kind_lists_the_known_ones() {
        let mut choice: Choice<dyn FrequencyMethod> = Choice::named("yarm", Options::new());
        let message = choice.resolve().unwrap_err().to_string();
        assert!(message.contains("`yarm`"), "{message}");
        assert!(
            message.contains("ntk_by_parts, yarn, longrope"),
            "{message}"
        );
    }

    #[test]
    fn runs_repeat_over_the_model() {
        let text = r#"{"layers":[[2,{"kind":"none"}],[1,{"kind":"linear","factor":2.0}]]}"#;
        let rope: Rope = serde_json::from_str(text).unwrap();
        let kinds: Vec<&str> = (rope.of_layers(6).unwrap().iter())
            .map(|choice| choice.kind())
            .collect();
        assert_eq!(kinds, ["none", "none", "linear", "none", "none", "linear"]);
        assert!(matches!(
            rope.of_layers(8),
            Err(OptionError::Runs {
                given: 3,
                layers: 8
            })
        ));
        assert_eq!(serde_json::to_string(&rope).unwrap(), text);
        for (bad, words) in [
            (json!({"layers": [[0, {"kind": "none"}]]}), "0 layers"),
            (json!({"layers": [[1, {"knd": "none"}]]}), "kind"),
            (json!({"layers": [], "factor": 2}), "in the runs"),
            (json!({"factor": 2}), "kind"),
        ] {
            let error = serde_json::from_value::<Rope>(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
