//! Perplexity protocols: which windows of the text are fed, which of their tokens are scored, and
//! how the losses are averaged.
//!
//! All of them feed `n` tokens and score at most `n - 1`; none adds a BOS token (the first Qwen has
//! none). A protocol is one file that exports `Protocol` and its name in the registry below;
//! `tests/registries.rs` then requires its goldens.

mod score;

use std::ops::Range;

use longspan_rope::{Axis, OptionError, Options, Variant, find, registry};
use serde::{Deserialize, Serialize};

pub use score::{Average, Score, SeOver, score};

registry! {
    /// Every perplexity protocol, in the order in which help texts list them.
    pub static PROTOCOLS: [dyn PerplexityProtocol] = Protocol;
    packed, truncate, sliding, last_k, half
}

/// A published way to measure perplexity at a length.
pub trait PerplexityProtocol: Variant {
    /// True if windows stay inside documents that are at least as long as the longest length.
    fn by_document(&self) -> bool {
        false
    }

    /// How the losses are averaged.
    fn average(&self) -> Average {
        Average::Tokens
    }

    /// The options with defaults filled in; checks them.
    ///
    /// # Errors
    /// An option is unknown or of the wrong type, or does not fit the lengths.
    fn complete(&self, budget: &Budget, options: &Options) -> Result<Options, OptionError>;

    /// The text, the windows and the scored positions in words, for the head of a table. `options`
    /// are complete.
    ///
    /// # Errors
    /// As [`complete`](PerplexityProtocol::complete).
    fn describe(&self, budget: &Budget, options: &Options) -> Result<Description, OptionError>;

    /// The windows of the cell of length `n`. `options` are complete.
    ///
    /// # Errors
    /// As [`complete`](PerplexityProtocol::complete).
    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        options: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError>;
}

impl Axis for dyn PerplexityProtocol {
    const DEFAULT: &'static str = "packed";

    fn registry() -> &'static [&'static Self] {
        PROTOCOLS
    }
}

/// The lengths and the token budget of a run, which all of its cells share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// The shortest length of the run, tokens; at least 2.
    pub shortest: usize,
    /// The longest length of the run, tokens.
    pub longest: usize,
    /// Most tokens fed per cell; at least `longest`.
    pub max_tokens: usize,
}

/// A protocol in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Which text.
    pub text: String,
    /// Which windows are fed.
    pub fed: String,
    /// Which positions are scored.
    pub scored: String,
}

impl Description {
    /// Windows of documents that are at least as long as the longest length.
    fn of_documents(budget: &Budget, fed: String, scored: String) -> Self {
        Description {
            text: format!(
                "documents of at least {} tokens, each on its own",
                budget.longest
            ),
            fed,
            scored,
        }
    }
}

/// Tokens of a corpus, documents one after the other.
#[derive(Debug, Default)]
pub struct TokenStream {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Offset of each document.
    pub document_start: Vec<usize>,
    /// Index of each document in the corpus, from 0.
    pub document_number: Vec<usize>,
}

impl TokenStream {
    /// Range of a document in `ids`.
    pub fn document(&self, index: usize) -> Range<usize> {
        let end = self.document_start.get(index + 1);
        self.document_start[index]..end.copied().unwrap_or(self.ids.len())
    }

    /// The documents of at least the longest length, numbered from 0: as many at every length as
    /// the budget allows at the longest.
    fn long_documents(
        &self,
        budget: &Budget,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + Clone {
        (0..self.document_start.len())
            .map(|index| self.document(index))
            .filter(|document| document.len() >= budget.longest)
            .take(budget.max_tokens / budget.longest)
            .enumerate()
    }
}

/// A stretch of text that is fed in one pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Offset in the stream.
    pub start: usize,
    /// Positions within the window whose loss counts; never 0.
    pub scored: Range<usize>,
    /// Windows of one group are not independent: a document, or the window alone.
    pub group: usize,
}

impl Window {
    /// A window of `n` tokens, all scored but the first.
    fn whole(start: usize, n: usize, group: usize) -> Self {
        Window {
            start,
            scored: 1..n,
            group,
        }
    }
}

/// A registered protocol; in configs and records its name.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtocolName(&'static dyn PerplexityProtocol);

impl ProtocolName {
    /// The registered protocol of a name.
    ///
    /// # Errors
    /// [`OptionError::Unknown`].
    pub fn new(name: &str) -> Result<Self, OptionError> {
        find(name).map(ProtocolName)
    }
}

impl std::ops::Deref for ProtocolName {
    type Target = dyn PerplexityProtocol;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for ProtocolName {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl std::fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for ProtocolName {
    type Error = OptionError;

    fn try_from(name: String) -> Result<Self, OptionError> {
        ProtocolName::new(&name)
    }
}

impl From<ProtocolName> for String {
    fn from(protocol: ProtocolName) -> String {
        protocol.name().to_owned()
    }
}
