//! `longspan run` end to end: measured numbers, tables, figures, and shipped configs.

#[path = "../shared/mod.rs"]
mod shared;

mod configs;
mod floor;
mod memory;
mod needle;
mod perplexity;
mod published;
mod tiny;
