//! The texts of a training, as token ids.

use anyhow::{Result, ensure};
use longspan_data::{BUILTIN_ARTICLES, Corpus, Tokenizer, training_articles};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

/// Token ids of documents, and where each starts.
pub struct Text {
    ids: Vec<u32>,
    starts: Vec<usize>,
}

impl Text {
    /// Reads the first documents of a corpus, leaving out those of less than `need` tokens. Built-in articles are
    /// those for training of a seed, never the held-out ones.
    ///
    /// # Errors
    /// A corpus that cannot be read, or without a document that is long enough.
    pub fn read(
        path: &str,
        text_field: &str,
        documents: Option<usize>,
        seed: u64,
        need: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let documents = documents.unwrap_or(usize::MAX);
        let mut text = Text {
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
            "{path}: the longest document has {longest} tokens, a sequence takes model.trained + 1 = {need}; give \
             longer documents or lower model.trained"
        );
        Ok(text)
    }

    /// A random stretch of one document, at most as long as the shortest.
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
