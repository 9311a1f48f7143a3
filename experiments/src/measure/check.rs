//! Checks of methods and texts against a model.

use anyhow::{Context, Result, bail};
use longspan_attention::{Method, Model, Plans};
use longspan_data::Tokenizer;
use longspan_rope::Length;

/// The plans of a method; an error names the method.
///
/// # Errors
/// The method does not fit the model.
pub fn plans(model: &Model, method: &Method, length: Length) -> Result<Plans> {
    method
        .plan(model, length)
        .with_context(|| format!("method \"{}\"", method.name))
}

/// Checks that a text's ids are in the model's vocabulary.
///
/// # Errors
/// An id that is not.
pub fn check_ids(text: &str, ids: &[u32], tokenizer: &Tokenizer, vocabulary: usize) -> Result<()> {
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        bail!(
            "{text}: token id {id} is outside the model's vocabulary of {vocabulary}; the vocabulary file \
             has {} tokens and is another model's",
            tokenizer.vocab_size()
        );
    }
    Ok(())
}
