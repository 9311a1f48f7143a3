//! The run config: TOML file, then `--set`, then checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use longspan_attention::Method;
use longspan_model::WeightType;
use serde::{Deserialize, Serialize};

use crate::needle::NeedleConfig;
use crate::protocol::Protocol;
use crate::published::{self, Published};

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
    /// Needle in a haystack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needle: Option<NeedleConfig>,
    /// Rows of the table.
    #[serde(rename = "method", default)]
    pub methods: Vec<Method>,
    /// Rows of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hugging Face folder, `builtin:tiny` or `builtin:random`.
    pub path: String,
    /// Type in which weights are held; default: as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<WeightType>,
    /// Type of the activations, on a GPU.
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    pub activations: WeightType,
    /// Vocabulary file; default: the one in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Trained length in tokens; default: `seq_length` of `config.json`.
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
    /// JSON field or Parquet column that holds the text.
    #[serde(default = "text_field")]
    pub text_field: String,
}

fn text_field() -> String {
    "text".to_owned()
}

/// `[perplexity]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerplexityConfig {
    /// Context lengths: tokens fed in one pass.
    pub lengths: Vec<usize>,
    /// One protocol or a list.
    #[serde(default = "packed")]
    pub protocol: Protocols,
    /// Tokens fed per cell, at most.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// `packed` and `half`: windows of every length start where those of the longest do.
    #[serde(default)]
    pub nested: bool,
    /// `sliding`: tokens between window starts; default 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// `last_k`: tokens scored at the end of each document; default half the shortest length, at most 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// `last_k`: windows of each document, each ending `last` tokens before the one after it; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Tokens of the first forward call, from which a method with `freeze = "prefill"` takes its
    /// frequencies; default: the whole window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<usize>,
}

/// `protocol = "packed"` or `protocol = ["packed", "half"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a protocol or a list of protocols: packed, truncate, sliding, last_k, half"
)]
pub enum Protocols {
    /// One.
    One(Protocol),
    /// Several.
    Many(Vec<Protocol>),
}

impl Protocols {
    /// As a list.
    pub fn list(&self) -> Vec<Protocol> {
        match self {
            Protocols::One(protocol) => vec![*protocol],
            Protocols::Many(list) => list.clone(),
        }
    }
}

fn packed() -> Protocols {
    Protocols::One(Protocol::Packed)
}

fn max_tokens() -> usize {
    262_144
}

impl PerplexityConfig {
    /// The longest context.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// `stride`, or its default.
    pub fn stride(&self) -> usize {
        self.stride.unwrap_or(256)
    }

    /// `windows`, or its default.
    pub fn windows(&self) -> usize {
        self.windows.unwrap_or(1)
    }

    /// `last`, or its default.
    pub fn last(&self) -> usize {
        let shortest = self.lengths.iter().copied().min().unwrap_or(0);
        self.last.unwrap_or((shortest / 2).min(4096))
    }
}

impl RunConfig {
    /// Reads a config and applies `--set KEY=VALUE` overrides.
    ///
    /// # Errors
    /// Anything that is unknown, missing, or contradicts something else in the config.
    pub fn load(path: &Path, set: &[String]) -> Result<Self> {
        let mut config: RunConfig = read(path, set)?;
        prepare_methods(&mut config.methods).with_context(|| path.display().to_string())?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    fn check(&mut self) -> Result<()> {
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
        published::check(self)?;
        if let Some(perplexity) = &mut self.perplexity {
            perplexity.check(&self.methods)?;
            perplexity.complete();
        }
        if let Some(needle) = &self.needle {
            needle.check()?;
        }
        Ok(())
    }
}

impl PerplexityConfig {
    /// Sorts the lengths and writes the defaults out, so that the run folder says what was used.
    fn complete(&mut self) {
        self.lengths.sort_unstable();
        for protocol in self.protocol.list() {
            match protocol {
                Protocol::Sliding => self.stride = Some(self.stride()),
                Protocol::LastK => {
                    self.last = Some(self.last());
                    self.windows = Some(self.windows());
                }
                _ => {}
            }
        }
    }

    fn check(&self, methods: &[Method]) -> Result<()> {
        let perplexity = self;
        let lengths = &perplexity.lengths;
        ensure!(
            !lengths.is_empty(),
            "perplexity.lengths is empty; give context lengths such as [1024, 2048]"
        );
        for (i, &length) in lengths.iter().enumerate() {
            ensure!(
                length >= 2,
                "perplexity.lengths: {length}; a pass over n tokens scores n - 1, so give 2 or more"
            );
            ensure!(
                !lengths[..i].contains(&length),
                "perplexity.lengths: {length} stands twice"
            );
            ensure!(
                length <= perplexity.max_tokens,
                "perplexity.lengths: {length} is more than max_tokens = {}; raise max_tokens",
                perplexity.max_tokens
            );
        }
        let protocols = perplexity.protocol.list();
        ensure!(
            !protocols.is_empty(),
            "perplexity.protocol is an empty list"
        );
        for (i, protocol) in protocols.iter().enumerate() {
            let name = protocol.name();
            ensure!(
                !protocols[..i].contains(protocol),
                "perplexity.protocol: {name} stands twice"
            );
        }
        let used = |by: &[Protocol]| protocols.iter().any(|protocol| by.contains(protocol));
        for (key, given, by) in [
            (
                "nested",
                perplexity.nested,
                &[Protocol::Packed, Protocol::Half][..],
            ),
            ("stride", perplexity.stride.is_some(), &[Protocol::Sliding]),
            ("last", perplexity.last.is_some(), &[Protocol::LastK]),
            ("windows", perplexity.windows.is_some(), &[Protocol::LastK]),
        ] {
            let names: Vec<&str> = by.iter().map(|protocol| protocol.name()).collect();
            ensure!(
                !given || used(by),
                "perplexity.{key} has no effect without protocol {}; remove it",
                names.join(" or ")
            );
        }
        ensure!(
            perplexity.stride() > 0,
            "perplexity.stride = 0; give 1 or more"
        );
        ensure!(
            perplexity.windows() > 0,
            "perplexity.windows = 0; give 1 or more"
        );
        ensure!(
            !used(&[Protocol::Half]) || lengths.iter().all(|&length| length >= 3),
            "perplexity.lengths: 2 has no token after the middle, which is what protocol half scores; \
             give 3 or more"
        );
        if used(&[Protocol::LastK]) {
            let shortest = lengths.iter().min().copied().unwrap_or(0);
            let last = perplexity.last();
            ensure!(
                (1..shortest).contains(&last),
                "perplexity.last = {last}, but the shortest length {shortest} scores {} tokens; \
                 give 1 to {}",
                shortest - 1,
                shortest - 1
            );
        }
        if let Some(prefill) = perplexity.prefill {
            ensure!(prefill > 0, "perplexity.prefill = 0; give 1 or more");
            let mut methods = methods.iter();
            ensure!(
                methods.any(|method| {
                    let mut ropes = method.rope.choices();
                    ropes.any(|rope| rope.options().contains_key("freeze"))
                }),
                "perplexity.prefill = {prefill} is for methods with freeze = \"prefill\", and none has it; \
                 remove it"
            );
        }
        Ok(())
    }
}

/// Reads a TOML file with `--set KEY=VALUE` overrides.
pub fn read<T: serde::de::DeserializeOwned>(path: &Path, set: &[String]) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut table: toml::Table =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    for assignment in set {
        apply(&mut table, assignment).with_context(|| format!("--set {assignment}"))?;
    }
    // The text is parsed once more, so that errors point at a line.
    let text = if set.is_empty() {
        text
    } else {
        toml::to_string(&table)?
    };
    toml::from_str(&text).with_context(|| match set {
        [] => path.display().to_string(),
        _ => format!("{} with --set {}", path.display(), set.join(" --set ")),
    })
}

/// Checks that there are methods, each with a name of its own, and reads the files that their options name.
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

/// A method given by keys of its table, as `rope.kind=dynamic_ntk`; none of them is plain RoPE.
///
/// # Errors
/// Keys or values that a `[[method]]` table would refuse.
pub fn method(set: &[String]) -> Result<Method> {
    let mut table = toml::Table::new();
    table.insert("name".to_owned(), "plain".into());
    for assignment in set {
        apply(&mut table, assignment).with_context(|| format!("--set {assignment}"))?;
    }
    let whose = || format!("--set {}", set.join(" --set "));
    let mut methods = [Method::deserialize(table).with_context(whose)?];
    prepare_methods(&mut methods).with_context(whose)?;
    let [method] = methods;
    Ok(method)
}

/// Sets `a.b.0.c=value` in a table.
fn apply(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let Some((path, value)) = assignment.split_once('=') else {
        bail!("no '='; write key=value, such as perplexity.max_tokens=65536");
    };
    // A bare word is a string, so that paths need no quotes inside the shell's.
    let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed.remove("value"),
        Err(_) => None,
    }
    .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys = path.trim().split('.').peekable();
    let first = keys.next().unwrap_or_default();
    if keys.peek().is_none() {
        table.insert(first.to_owned(), value);
        return Ok(());
    }
    let mut place = table
        .entry(first)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    while let Some(key) = keys.next() {
        let last = keys.peek().is_none();
        place = match place {
            toml::Value::Table(table) if last => {
                table.insert(key.to_owned(), value);
                return Ok(());
            }
            toml::Value::Table(table) => table
                .entry(key)
                .or_insert_with(|| toml::Value::Table(toml::Table::new())),
            toml::Value::Array(list) => {
                let len = list.len();
                let entry = key.parse::<usize>().ok().and_then(|i| list.get_mut(i));
                let Some(entry) = entry else {
                    bail!("{key} is no entry of a list of {len} (the first is 0)");
                };
                entry
            }
            other => bail!("{key}: {other} has no keys"),
        };
        if last {
            *place = value;
            return Ok(());
        }
    }
    Ok(())
}

/// The first key in which two configs differ, with both values.
pub fn difference(at: &str, found: &toml::Value, asked: &toml::Value) -> Option<String> {
    let name = |key: &str| match at {
        "" => key.to_owned(),
        _ => format!("{at}.{key}"),
    };
    match (found, asked) {
        (toml::Value::Table(a), toml::Value::Table(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => difference(&name(key), a, b),
                (Some(a), None) => Some(format!("{} is {a} there, not given now", name(key))),
                (_, Some(b)) => Some(format!("{} is not given there, {b} now", name(key))),
                (None, None) => None,
            })
            .next()
        }
        (toml::Value::Array(a), toml::Value::Array(b))
            if a.len() == b.len() && a.iter().any(toml::Value::is_table) =>
        {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .filter_map(|(i, (a, b))| difference(&name(&i.to_string()), a, b))
                .next()
        }
        (toml::Value::Array(a), toml::Value::Array(b))
            if a != b && a.iter().chain(b).any(toml::Value::is_table) =>
        {
            Some(format!(
                "{at} has {} entries there, {} now",
                a.len(),
                b.len()
            ))
        }
        _ if found == asked => None,
        _ => Some(format!("{at} is {found} there, {asked} now")),
    }
}
