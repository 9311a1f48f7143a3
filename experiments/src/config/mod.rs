//! The run config: TOML file, then overrides, then checks.

mod needle;
pub(crate) mod overrides;
mod perplexity;
mod published;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longspan_attention::Method;
use longspan_model::WeightType;
use serde::{Deserialize, Serialize};

pub use needle::{Depth, Depths, NamedTask, NeedleConfig, Scorers, TaskEntry};
pub(crate) use overrides::read;
pub use perplexity::{PerplexityConfig, ProtocolEntry, Protocols};
pub use published::{Published, note};

/// A whole run. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Which model.
    pub model: ModelConfig,
    /// Which text.
    pub data: DataConfig,
    /// Perplexity by length; this or `needle` must be given, or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<PerplexityConfig>,
    /// Tasks, by length and depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needle: Option<NeedleConfig>,
    /// Rows of the table.
    #[serde(rename = "method", default)]
    pub methods: Vec<Method>,
    /// Rows with numbers that others published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hugging Face folder, `builtin:tiny` or `builtin:random`.
    pub path: String,
    /// Type in which weights are held: `f32`, `bf16` or `f16`; default: as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<WeightType>,
    /// Type of the activations; on a GPU also `bf16` and `f16`; default: `f32`.
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    pub activations: WeightType,
    /// Vocabulary file; default: the one in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Trained length in tokens; default: that of `config.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained: Option<usize>,
}

fn f32() -> WeightType {
    WeightType::F32
}

fn is_f32(dtype: &WeightType) -> bool {
    *dtype == WeightType::F32
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// File, folder, glob or `builtin:articles`.
    pub path: String,
    /// JSON field or Parquet column that holds the text; default: `text`.
    #[serde(default = "text_field")]
    pub text_field: String,
}

fn text_field() -> String {
    "text".to_owned()
}

impl RunConfig {
    /// Packed perplexity of a model on a text under methods, at some lengths.
    ///
    /// # Errors
    /// A length below 2; methods without names of their own.
    pub fn perplexity(
        model: &str,
        data: &str,
        lengths: impl AsRef<[usize]>,
        methods: Vec<Method>,
    ) -> Result<Self> {
        let mut config = RunConfig {
            model: ModelConfig {
                path: model.to_owned(),
                dtype: None,
                activations: WeightType::F32,
                tokenizer: None,
                trained: None,
            },
            data: DataConfig {
                path: data.to_owned(),
                text_field: text_field(),
            },
            perplexity: Some(PerplexityConfig::new(lengths.as_ref())),
            needle: None,
            methods,
            published: Vec::new(),
        };
        config.check()?;
        Ok(config)
    }

    /// Reads a config and applies `KEY=VALUE` overrides.
    ///
    /// # Errors
    /// A key that is unknown, missing or of the wrong type; values that contradict each other.
    pub fn load(path: &Path, set: &[String]) -> Result<Self> {
        let mut config: RunConfig = read(path, set)?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// Checks the config, reads the files that its methods name, and writes its defaults out.
    ///
    /// # Errors
    /// As [`load`](RunConfig::load).
    pub fn check(&mut self) -> Result<()> {
        prepare_methods(&mut self.methods)?;
        ensure!(
            self.perplexity.is_some() || self.needle.is_some(),
            "neither [perplexity] nor [needle] says what to measure; add one, such as:\n\n\
             [perplexity]\nlengths = [1024, 2048]"
        );
        if let Some(trained) = self.model.trained {
            ensure!(
                (2..=1 << 31).contains(&trained),
                "model.trained = {trained}; give 2 to {} tokens",
                1u64 << 31
            );
        }
        if let Some(perplexity) = &mut self.perplexity {
            perplexity.check(&self.methods)?;
            perplexity.complete()?;
        }
        let protocols = self.perplexity.as_ref().map(PerplexityConfig::protocols);
        published::check(
            &self.published,
            &protocols.unwrap_or_default(),
            &self.methods,
        )?;
        if let Some(needle) = &self.needle {
            needle.check()?;
        }
        Ok(())
    }
}

/// Checks that there are methods, each with a name of its own, and reads the files that their
/// options name.
///
/// # Errors
/// No method; a name that is empty, blank at its ends, or used twice; a file that cannot be used.
pub fn prepare_methods(methods: &mut [Method]) -> Result<()> {
    ensure!(
        !methods.is_empty(),
        "no [[method]] table; add one, such as:\n\n[[method]]\nname = \"plain\""
    );
    for (i, method) in methods.iter().enumerate() {
        let name = &method.name;
        ensure!(
            !name.is_empty() && name.trim() == name && !name.contains(char::is_control),
            "method {i} is named {name:?}; give it a name without blanks at its ends or line breaks"
        );
        ensure!(
            methods[..i].iter().all(|other| other.name != method.name),
            "two methods are named \"{}\"; names are the rows of the table, so make them differ",
            method.name
        );
    }
    for method in methods {
        let resolved = method.resolve();
        resolved.with_context(|| format!("method \"{}\"", method.name))?;
    }
    Ok(())
}

/// A method from keys of its table, such as `rope.kind=dynamic_ntk`; without any, plain RoPE.
///
/// # Errors
/// Keys or values that a `[[method]]` table would refuse.
pub fn method(set: &[String]) -> Result<Method> {
    let mut table = toml::Table::new();
    table.insert("name".to_owned(), "plain".into());
    for assignment in set {
        overrides::apply(&mut table, assignment)
            .with_context(|| format!("override {assignment}"))?;
    }
    let whose = || format!("method of {}", set.join(", "));
    let mut methods = [Method::deserialize(table).with_context(whose)?];
    prepare_methods(&mut methods).with_context(whose)?;
    let [method] = methods;
    Ok(method)
}
