//! What a model reads: token ids, and the texts they are made from.
//!
//! - [`Tokenizer`] encodes text as Qwen's token ids and decodes them.
//! - [`Corpus`] streams [`Document`]s from text, JSON Lines and Parquet files, or from the built-in
//!   articles.
//! - [`Article`] is a built-in article with the exact likelihood of each of its pieces, given all
//!   or part of the text before.
//! - [`hide`] builds a prompt with needles hidden in a haystack.
//! - [`Chat`] builds the prompt of a conversation.
//! - [`TINY`] has the files of the built-in model.
//! - [`DataError`] tells what is wrong with a file, where, and what to do about it.

mod articles;
mod builtin;
mod chat;
mod corpus;
mod document;
mod error;
mod format;
mod haystack;
mod parquet;
mod text;
mod tokenizer;

pub use articles::{Article, Piece, held_out_articles, training_articles};
pub use builtin::{BuiltinModel, TINY};
pub use chat::{Chat, ChatFormat};
pub use corpus::{BUILTIN_ARTICLES, Corpus};
pub use document::Document;
pub use error::DataError;
pub use haystack::{HaystackError, Place, Prompt, PromptTexts, hide};
pub use tokenizer::{SPLIT, Tokenizer};
