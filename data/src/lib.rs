//! What a model reads: the tokenizer, and the texts it is applied to.
//!
//! - [`Tokenizer`] turns text into Qwen's token ids and back.
//! - [`Corpus`] streams documents from text, JSON Lines and Parquet files, or from the built-in articles.
//! - [`Article`] is one of those, with the true likelihood of each of its pieces given all or a part of what is
//!   before.
//! - [`NeedleTask`] draws facts to hide in a text, their question and their answer; [`NeedleTask::hide`] builds the
//!   prompt.
//! - [`Chat`] builds the prompts of a conversation.
//! - [`TINY`] is the built-in model's files.
//! - [`DataError`] says what is wrong with a file, where, and what to do about it.

mod articles;
mod builtin;
mod chat;
mod corpus;
mod draw;
mod error;
mod haystack;
mod needle;
mod parquet;
mod text;
mod tokenizer;
mod words;

pub use articles::{Article, Piece, held_out_articles, training_articles};
pub use builtin::{BuiltinModel, TINY};
pub use chat::{Chat, ChatFormat};
pub use corpus::{BUILTIN_ARTICLES, Corpus, Document};
pub use draw::Draw;
pub use error::DataError;
pub use haystack::{Place, Prompt};
pub use needle::{Needle, NeedleError, NeedleTask};
pub use tokenizer::{SPLIT, Tokenizer};
