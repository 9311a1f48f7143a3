//! `longspan list`: the variants of every axis.

use std::fmt::Write;

use anyhow::Result;
use clap::ValueEnum;
use longspan::figures::FIGURES;
use longspan::protocols::PROTOCOLS;
use longspan::tasks::TASKS;
use longspan_attention::{PATTERNS, SCALES};
use longspan_model::FAMILIES;
use longspan_rope::{METHODS, Variant};

use super::print;

/// Options of `list`.
#[derive(clap::Args)]
pub struct Args {
    /// What to list [default: everything]
    what: Option<What>,
}

/// The axes and figures that can be listed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum What {
    /// Frequency methods: rope = { kind = "..." } in [[method]]
    Methods,
    /// Attention patterns: attention = { kind = "..." } in [[method]]
    Patterns,
    /// Query scales: scale = { kind = "..." } in [[method]]
    Scales,
    /// Perplexity protocols: protocol = "..." in [perplexity]
    Protocols,
    /// Tasks: tasks = ["..."] in [needle]
    Tasks,
    /// Model families: model_type in config.json
    Families,
    /// Figures of a run folder
    Figures,
}

/// Prints one axis, or all.
pub fn list(args: Args) -> Result<()> {
    let mut out = String::new();
    for &what in What::value_variants() {
        if args.what.is_none_or(|asked| asked == what) {
            section(&mut out, what)?;
        }
    }
    print(&out)
}

fn section(out: &mut String, what: What) -> Result<()> {
    match what {
        What::Methods => axis(out, "rope = { kind = \"...\" }", METHODS)?,
        What::Patterns => {
            axis(out, "attention = { kind = \"...\" }", PATTERNS)?;
            writeln!(
                out,
                "short forms: window = SIZE, window = {{ layers = SIZE, alpha = \"...\" }}, sinks = N\n"
            )?;
        }
        What::Scales => {
            axis(out, "scale = { kind = \"...\" }", SCALES)?;
            writeln!(
                out,
                "short forms: logn = true, logn = {{ length = \"position\" | \"visible\" }}\n"
            )?;
        }
        What::Protocols => axis(out, "[perplexity] protocol = \"...\"", PROTOCOLS)?,
        What::Tasks => tasks(out)?,
        What::Families => axis(out, "config.json: model_type", FAMILIES)?,
        What::Figures => {
            writeln!(out, "figures of a run folder\n")?;
            for figure in FIGURES {
                writeln!(out, "{:<15} {}", figure.stem(), figure.summary())?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

/// A row for each variant of an axis, with its source and options.
fn axis<V: Variant + ?Sized>(out: &mut String, head: &str, variants: &[&V]) -> Result<()> {
    writeln!(out, "{head}\n")?;
    for variant in variants {
        writeln!(out, "{:<15} {}", variant.name(), variant.summary())?;
        writeln!(out, "{:<15} {}", "", variant.source())?;
        for option in variant.options() {
            writeln!(
                out,
                "{:<15}   {} = {}: {}",
                "", option.name, option.default, option.meaning
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Every task; those that are templates as they would stand in a config.
fn tasks(out: &mut String) -> Result<()> {
    axis(out, "[needle] tasks = [\"...\"]", TASKS)?;
    writeln!(out, "as templates; a task of your own is such a table\n")?;
    for template in TASKS.iter().filter_map(|task| task.template()) {
        writeln!(out, "[[needle.task]]")?;
        // A JSON string or number is one of TOML too, and stays on its line.
        let table = serde_json::to_value(&template)?;
        for (key, value) in table.as_object().into_iter().flatten() {
            writeln!(out, "{key} = {value}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
