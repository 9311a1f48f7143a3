//! Numbers that others have published, shown next to those of a run.

use std::collections::BTreeMap;

use anyhow::ensure;
use longspan_attention::Method;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::protocols::ProtocolName;

/// The protocol under which published numbers are shown: that of Qwen's table.
pub const PROTOCOL: &str = "packed";

/// `[[published]]`. No record depends on these rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// What was measured; the row is labelled `published: NAME`.
    pub name: String,
    /// Where the numbers come from, for the note under the table.
    pub source: String,
    /// The method of the run to compare with; gives the row its colour in the figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Perplexity by context length.
    #[serde(serialize_with = "keys_as_text", deserialize_with = "keys_from_text")]
    pub perplexity: BTreeMap<usize, f64>,
}

/// TOML's keys are text.
fn keys_as_text<S: Serializer>(
    map: &BTreeMap<usize, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        map.iter()
            .map(|(length, value)| (length.to_string(), value)),
    )
}

fn keys_from_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<usize, f64>, D::Error> {
    let length = |key: String| match key.parse::<usize>() {
        Ok(length) if length.to_string() == key => Ok(length),
        _ => Err(D::Error::custom(format!(
            "{key:?} is not a context length; write it in tokens, such as 1024"
        ))),
    };
    let map = BTreeMap::<String, f64>::deserialize(deserializer)?.into_iter();
    map.map(|(key, value)| Ok((length(key)?, value))).collect()
}

impl Published {
    /// Name of the row and of the curve.
    pub fn label(&self) -> String {
        format!("published: {}", self.name)
    }

    /// The number at a length as it is printed, to two decimals at least.
    pub fn cell(&self, length: usize) -> String {
        match self.perplexity.get(&length) {
            None => "-".to_owned(),
            Some(p) if *p >= 1e6 => format!("{p:.2e}"),
            Some(p) => std::cmp::max_by_key(format!("{p}"), format!("{p:.2}"), String::len),
        }
    }
}

/// The lines under a table that say where the published rows come from.
pub fn note(published: &[Published]) -> String {
    let mut sources: Vec<&str> = Vec::new();
    for row in published {
        if !sources.contains(&row.source.as_str()) {
            sources.push(&row.source);
        }
    }
    let notes = sources.iter().map(|&source| {
        let rows = published.iter().filter(|row| row.source == source);
        let names: Vec<&str> = rows.map(|row| row.name.as_str()).collect();
        let of = match sources.len() {
            1 => String::new(),
            _ => format!(" ({})", names.join("; ")),
        };
        format!("\npublished{of}: not measured here, but taken from {source}\n")
    });
    notes.collect()
}

/// Checks the rows of a config.
///
/// # Errors
/// A run without protocol `packed`; a row without numbers or a name of its own, or with a method
/// that the config lacks.
pub(super) fn check(
    published: &[Published],
    protocols: &[ProtocolName],
    methods: &[Method],
) -> anyhow::Result<()> {
    if published.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = protocols.iter().map(|protocol| protocol.name()).collect();
    ensure!(
        names.contains(&PROTOCOL),
        "[[published]] numbers stand in the table of protocol packed, and this run has {}; add packed to \
         perplexity.protocol, or remove them",
        match names.as_slice() {
            [] => "no [perplexity]".to_owned(),
            names => format!("only {}", names.join(", ")),
        }
    );
    for (i, row) in published.iter().enumerate() {
        for (key, text) in [("name", &row.name), ("source", &row.source)] {
            ensure!(
                !text.is_empty() && text.trim() == text && !text.contains(char::is_control),
                "published.{i}.{key} = {text:?}; give a text without blanks at its ends or line breaks"
            );
        }
        let name = &row.name;
        ensure!(
            published[..i].iter().all(|other| other.name != *name),
            "published.{i}.name: {name:?} stands twice; names are the rows of the table, so make them differ"
        );
        ensure!(
            !row.perplexity.is_empty(),
            "published.{i} ({name:?}): perplexity is empty; give numbers by length, such as {{ \"1024\" = 4.23 }}"
        );
        for (length, perplexity) in &row.perplexity {
            ensure!(
                *length >= 2,
                "published.{i} ({name:?}): perplexity.{length}: a length is 2 tokens or more"
            );
            ensure!(
                perplexity.is_finite() && *perplexity > 0.0,
                "published.{i} ({name:?}): perplexity.{length} = {perplexity}; give a finite number above 0, or \
                 leave the length out"
            );
        }
        if let Some(method) = &row.method {
            let names: Vec<String> = (methods.iter())
                .map(|method| format!("{:?}", method.name))
                .collect();
            ensure!(
                names.contains(&format!("{method:?}")),
                "published.{i} ({name:?}): method = {method:?} is not a [[method]] of this config; there are {}",
                names.join(", ")
            );
        }
    }
    Ok(())
}
