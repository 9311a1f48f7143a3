//! `[perplexity]` of a run config.

use anyhow::{Context, Result, ensure};
use longspan_attention::Method;
use longspan_rope::{Axis, Choice, Options};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::protocols::{Budget, PROTOCOLS, PerplexityProtocol, ProtocolName};

/// `[perplexity]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerplexityConfig {
    /// Context lengths: tokens fed in one pass.
    pub lengths: Vec<usize>,
    /// One protocol or a list: names, or tables `{ kind = "sliding", stride = 512 }`; default:
    /// `packed`.
    #[serde(default)]
    pub protocol: Protocols,
    /// Tokens fed per cell, at most; default: 262144.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Short form of the option of `packed` and `half`: windows of every length start where those
    /// of the longest do.
    #[serde(default)]
    pub nested: bool,
    /// Short form of the option of `sliding`: tokens from one window to the next; default: 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Short form of the option of `last_k`: tokens scored at the end of each window; default: half
    /// the shortest length, at most 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Short form of the option of `last_k`: windows of each document, each ending `last` tokens
    /// before the next; default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Tokens of the first forward call, from which a method with `freeze = "prefill"` takes its
    /// frequencies; default: the whole window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<usize>,
}

fn max_tokens() -> usize {
    262_144
}

/// `protocol = "packed"` or `protocol = ["packed", { kind = "sliding", stride = 512 }]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a protocol or a list of protocols: their names, or tables such as { kind = \"sliding\", stride = 512 }"
)]
pub enum Protocols {
    /// One.
    One(ProtocolEntry),
    /// Several.
    Many(Vec<ProtocolEntry>),
}

/// A name, or a name with options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProtocolEntry {
    /// The options are keys of `[perplexity]`.
    Name(String),
    /// The options are in the table.
    Table(Choice<dyn PerplexityProtocol>),
}

impl Default for Protocols {
    fn default() -> Self {
        let default = <dyn PerplexityProtocol as Axis>::DEFAULT;
        Protocols::One(ProtocolEntry::Name(default.to_owned()))
    }
}

impl Protocols {
    fn entries(&self) -> &[ProtocolEntry] {
        match self {
            Protocols::One(entry) => std::slice::from_ref(entry),
            Protocols::Many(list) => list,
        }
    }

    fn entries_mut(&mut self) -> &mut [ProtocolEntry] {
        match self {
            Protocols::One(entry) => std::slice::from_mut(entry),
            Protocols::Many(list) => list,
        }
    }
}

impl ProtocolEntry {
    fn name(&self) -> &str {
        match self {
            ProtocolEntry::Name(name) => name,
            ProtocolEntry::Table(choice) => choice.kind(),
        }
    }
}

impl PerplexityConfig {
    /// Packed perplexity at these lengths.
    pub fn new(lengths: &[usize]) -> Self {
        PerplexityConfig {
            lengths: lengths.to_vec(),
            protocol: Protocols::default(),
            max_tokens: max_tokens(),
            nested: false,
            stride: None,
            last: None,
            windows: None,
            prefill: None,
        }
    }

    /// The lengths and the token budget, which all cells share.
    pub fn budget(&self) -> Budget {
        let lengths = || self.lengths.iter().copied();
        Budget {
            shortest: lengths().min().unwrap_or(0),
            longest: lengths().max().unwrap_or(0),
            max_tokens: self.max_tokens,
        }
    }

    /// The protocols, in the order of the config.
    pub fn protocols(&self) -> Vec<ProtocolName> {
        let entries = self.protocol.entries().iter();
        // `check` refuses unknown names.
        entries
            .filter_map(|entry| ProtocolName::new(entry.name()).ok())
            .collect()
    }

    /// The protocols with their options.
    ///
    /// # Errors
    /// An unknown protocol; an option that is given in two places.
    pub fn chosen(&self) -> Result<Vec<(ProtocolName, Options)>> {
        let entries = self.protocol.entries().iter();
        entries.map(|entry| self.options_of(entry)).collect()
    }

    /// The short forms that are given.
    fn short_forms(&self) -> Vec<(&'static str, serde_json::Value)> {
        let number = |key, value: Option<usize>| Some((key, json!(value?)));
        let forms = [
            self.nested.then(|| ("nested", json!(true))),
            number("stride", self.stride),
            number("last", self.last),
            number("windows", self.windows),
        ];
        forms.into_iter().flatten().collect()
    }

    fn options_of(&self, entry: &ProtocolEntry) -> Result<(ProtocolName, Options)> {
        let protocol = ProtocolName::new(entry.name()).context("perplexity.protocol")?;
        let mut options = match entry {
            ProtocolEntry::Name(_) => Options::new(),
            ProtocolEntry::Table(choice) => choice.options().clone(),
        };
        let takes = |key: &str| protocol.options().iter().any(|option| option.name == key);
        for (key, value) in self.short_forms() {
            if takes(key) {
                ensure!(
                    options.insert(key.to_owned(), value).is_none(),
                    "perplexity.{key} is a short form of the option {key} of protocol {}, and both are \
                     given; remove one",
                    protocol.name()
                );
            }
        }
        Ok((protocol, options))
    }

    /// Sorts the lengths and fills in the defaults of options, so that a run folder records them.
    ///
    /// # Errors
    /// An option that a protocol refuses.
    pub(super) fn complete(&mut self) -> Result<()> {
        self.lengths.sort_unstable();
        let budget = self.budget();
        let short_forms = self.short_forms();
        let mut completed = Vec::new();
        for (protocol, options) in self.chosen()? {
            completed.push(protocol.complete(&budget, &options).context("perplexity")?);
        }
        for (entry, mut options) in self.protocol.entries_mut().iter_mut().zip(completed) {
            match entry {
                ProtocolEntry::Table(choice) => {
                    // An option given in its short form stays there: a config with both forms,
                    // once written, could not be read again.
                    options.retain(|key, _| short_forms.iter().all(|(short, _)| short != key));
                    *choice = Choice::named(choice.kind(), options);
                }
                ProtocolEntry::Name(_) => {
                    let number = |key: &str| options.get(key)?.as_u64().map(|n| n as usize);
                    self.stride = self.stride.or(number("stride"));
                    self.last = self.last.or(number("last"));
                    self.windows = self.windows.or(number("windows"));
                }
            }
        }
        Ok(())
    }

    /// Checks everything that can be checked without model and text.
    ///
    /// # Errors
    /// The key that is wrong, its value, and what to give instead.
    pub(super) fn check(&self, methods: &[Method]) -> Result<()> {
        self.check_lengths()?;
        self.check_protocols()?;
        if let Some(prefill) = self.prefill {
            ensure!(prefill > 0, "perplexity.prefill = 0; give 1 or more");
            let mut ropes = methods.iter().flat_map(|method| method.rope.choices());
            ensure!(
                ropes.any(|rope| rope.options().contains_key("freeze")),
                "perplexity.prefill = {prefill} is for methods with freeze = \"prefill\", and none has it; \
                 remove it"
            );
        }
        Ok(())
    }

    fn check_lengths(&self) -> Result<()> {
        let lengths = &self.lengths;
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
                length <= self.max_tokens,
                "perplexity.lengths: {length} is more than max_tokens = {}; raise max_tokens",
                self.max_tokens
            );
        }
        Ok(())
    }

    fn check_protocols(&self) -> Result<()> {
        let chosen = self.chosen()?;
        ensure!(!chosen.is_empty(), "perplexity.protocol is an empty list");
        for (i, (protocol, _)) in chosen.iter().enumerate() {
            ensure!(
                chosen[..i].iter().all(|other| other.0 != *protocol),
                "perplexity.protocol: {} stands twice",
                protocol.name()
            );
        }
        let takes = |protocol: &dyn PerplexityProtocol, key: &str| {
            protocol.options().iter().any(|option| option.name == key)
        };
        for (key, _) in self.short_forms() {
            let names: Vec<&str> = (PROTOCOLS.iter())
                .filter(|protocol| takes(**protocol, key))
                .map(|protocol| protocol.name())
                .collect();
            ensure!(
                chosen.iter().any(|(protocol, _)| takes(&**protocol, key)),
                "perplexity.{key} has no effect without protocol {}; remove it",
                names.join(" or ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run folder holds the completed config, which is read and completed again for a report.
    #[test]
    fn a_completed_config_can_be_completed_again() {
        for protocol in [
            "protocol = [{ kind = \"half\" }, \"packed\"]\nnested = true",
            "protocol = { kind = \"sliding\" }\nstride = 16",
            "protocol = [{ kind = \"last_k\" }, \"sliding\"]\nlast = 8",
            "protocol = [\"last_k\", { kind = \"sliding\", stride = 16 }]",
        ] {
            let mut config: PerplexityConfig =
                toml::from_str(&format!("lengths = [64, 32]\n{protocol}")).unwrap();
            config.check(&[]).unwrap();
            config.complete().unwrap();
            let options = config.chosen().unwrap();
            let written = toml::Table::try_from(&config).unwrap();
            let mut again: PerplexityConfig = written.try_into().unwrap();
            again.check(&[]).unwrap();
            again.complete().unwrap();
            assert_eq!(again, config);
            assert_eq!(again.chosen().unwrap(), options);
        }
    }
}
