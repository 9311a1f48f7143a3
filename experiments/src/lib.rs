//! Longspan: what happens to a RoPE language model past the length it was trained on, and which
//! inference-time method helps.
//!
//! A [`RunConfig`](config::RunConfig) names a model, text, methods and lengths. A
//! [`Sweep`](measure::Sweep) turns it into cells (one number each: a method at a length under a
//! protocol or a task) and the passes that fill them, and runs them; [`report`] makes tables and
//! figures of the records. The program `longspan` is a thin binary over this library.
//!
//! A method of your own needs no registry:
//!
//! ```
//! use longspan::config::RunConfig;
//! use longspan::measure::Sweep;
//! use longspan_attention::Method;
//! use longspan_rope::{FrequencyMethod, Length, OptionError, Options, Rope, Spectrum, Variant};
//!
//! /// Every frequency divided by the square root of the stretch.
//! struct Softer;
//!
//! impl Variant for Softer {
//!     fn name(&self) -> &'static str { "softer" }
//! }
//!
//! impl FrequencyMethod for Softer {
//!     fn spectrum(&self, rope: &Rope, n: Length, _: &Options) -> Result<Spectrum, OptionError> {
//!         let stretch = (n.total as f64 / rope.trained as f64).max(1.0);
//!         let inv_freq = rope.inv_freq(rope.base).iter().map(|f| f / stretch.sqrt()).collect();
//!         Ok(Spectrum { inv_freq, mscale: 1.0 })
//!     }
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! let method = Method::named("softer").with_rope(Softer);
//! let config = RunConfig::perplexity("builtin:tiny", "builtin:articles", [512], vec![method])?;
//! let results = Sweep::open(config)?.measure()?;
//! println!("{:.3} nats per token", results.perplexity[0].nll.unwrap());
//! # assert!(results.perplexity[0].nll.unwrap() < 2.0);
//! # Ok(())
//! # }
//! ```
//!
//! Messages go through the `log` crate; nothing is printed.

pub mod config;
pub mod device;
mod draw;
pub mod figures;
pub mod folder;
pub mod generation;
pub mod measure;
pub mod memory;
pub mod open;
pub mod protocols;
pub mod report;
pub mod session;
pub mod tables;
pub mod tasks;
pub mod train;
