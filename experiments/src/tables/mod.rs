//! Tables of a run: rows of methods, columns of lengths, as Markdown and CSV.

#[cfg(test)]
pub mod example;
pub mod markdown;
pub mod perplexity;
pub mod tasks;
