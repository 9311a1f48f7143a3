//! Training texts as token ids.

use anyhow::{Result, ensure};
use longspan_data::{BUILTIN_ARTICLES, Corpus, Tokenizer, training_articles};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

/// Token ids of documents, and where each starts.
pub struct TokenizedText {
    ids: Vec<u32>,
    starts: Vec<usize>,
}

impl TokenizedText {
    /// Reads the first `documents` documents of a corpus (default: all) and drops those shorter
    /// than `need` tokens. Built-in articles are the training articles of `seed`, never the
    /// held-out ones.
    ///
    /// # Errors
    /// The corpus cannot be read, or no document is long enough.
    pub fn read(
        path: &str,
        text_field: &str,
        documents: Option<usize>,
        seed: u64,
        need: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let documents = documents.unwrap_or(usize::MAX);
        let mut text = TokenizedText {
            ids: Vec::new(),
            starts: Vec::new(),
        };
        let mut longest = 0;
        let mut add = |document: &str| {
            let ids = tokenizer.encode(document);
            longest = longest.max(ids.len());
            if ids.len() >= need {
                text.starts.push(text.ids.len());
                text.ids.extend(ids);
            }
        };
        if path == BUILTIN_ARTICLES {
            for article in training_articles(seed).take(documents) {
                add(&article.text);
            }
        } else {
            for document in Corpus::open(path, text_field)?.documents().take(documents) {
                add(&document?.text);
            }
        }
        ensure!(
            !text.starts.is_empty(),
            "{path}: the longest document has {longest} tokens, a sequence takes model.trained + 1 \
             = {need}; give longer documents or lower model.trained"
        );
        Ok(text)
    }

    /// A random stretch of `len` tokens within one document. `len` must not exceed the shortest
    /// document.
    pub fn stretch(&self, len: usize, rng: &mut Xoshiro256PlusPlus) -> &[u32] {
        if len == 0 {
            return &[];
        }
        loop {
            let at = rng.random_range(0..self.ids.len() - len + 1);
            let document = self.starts.partition_point(|&start| start <= at);
            let end = self.starts.get(document).copied().unwrap_or(self.ids.len());
            if at + len <= end {
                return &self.ids[at..at + len];
            }
        }
    }
}

/// Draws one of several texts.
pub fn choose<'a>(texts: &[&'a TokenizedText], rng: &mut Xoshiro256PlusPlus) -> &'a TokenizedText {
    texts[rng.random_range(0..texts.len())]
}
