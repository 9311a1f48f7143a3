//! Tables and figures from records.

mod table;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::RunConfig;
use crate::floor;
use crate::memory::{self, Refused};
use crate::needle::{self, NeedleRecord};
use crate::plot::{self, Curve, CurveKind, LengthFigure};
use crate::protocol::SeOver;
use crate::published;
use crate::records::{self, Record, write_whole};
use crate::run::PERPLEXITY;
use table::{Table, number, tables, write_csv};
pub use table::{length_labels, padded};

/// `longspan report DIR`: everything again from `config.toml` and `records.jsonl`.
pub fn report(dir: &Path) -> Result<()> {
    let (perplexities, needles) = records::load_records(dir)?;
    let path = dir.join("config.toml");
    let config = RunConfig::load(&path, &[])?;
    write(dir, &perplexities, &needles, &config)
}

/// A finished cell, for a log.
pub fn one_line(record: &Record) -> String {
    format!(
        "{}, {} tokens, {}: perplexity {} ({:.1} s, {:.0} tokens/s)",
        record.method,
        record.length,
        record.protocol.name(),
        number(record),
        record.seconds,
        record.tokens_per_second
    )
}

/// Writes all tables and figures, and prints the tables.
pub fn write(
    dir: &Path,
    perplexities: &[Record],
    needles: &[NeedleRecord],
    config: &RunConfig,
) -> Result<()> {
    let mut texts = Vec::new();
    let refused = memory::read(dir)?;
    if !perplexities.is_empty() {
        texts.push(write_perplexity(dir, perplexities, &refused, config)?);
    }
    if let (Some(table), false) = (&config.needle, needles.is_empty()) {
        texts.push(needle::write(dir, needles, &refused, config, table)?);
    }
    let text = texts.join("\n");
    crate::print(&format!("{text}\nwritten to {}\n", dir.display()))
}

/// Writes `table.md`, `table.csv` and the figures; returns the tables.
fn write_perplexity(
    dir: &Path,
    records: &[Record],
    refused: &[Refused],
    config: &RunConfig,
) -> Result<String> {
    let Some(newest) = records.last() else {
        return Ok(String::new());
    };
    let floors = floor::read(dir)?;
    let tables = tables(records, &floors, config);
    let mut text = head(
        "Perplexity by context length",
        &newest.model,
        &newest.dtype,
        newest.trained_length,
        &newest.checkpoint,
        &newest.data,
    );
    if !floors.is_empty() {
        writeln!(
            text,
            "- {}: the perplexity of a reader of the same windows who knows by which rules the text was \
             made; no model can be expected to go below it",
            floor::ROW
        )?;
    }
    for table in &tables {
        let unit = match table.protocol.by_document() {
            true => "document",
            false => "window",
        };
        let markdown = table.markdown();
        let over_tokens = |record: &&Record| record.se_over == SeOver::Tokens;
        let starred = match table.records.iter().any(over_tokens) {
            true => format!(" (*: over tokens, since there is one {unit}: too small)"),
            false => String::new(),
        };
        write!(
            text,
            "\n## {}\n\n{}; ± is one standard error over {unit}s{starred}\n\n{markdown}",
            table.protocol.name(),
            table.detail,
        )?;
        text.push_str(&published::note(table.published));
    }
    text.push_str(&memory::note(refused, PERPLEXITY));
    write_whole(&dir.join("table.md"), text.as_bytes())?;
    write_csv(&dir.join("table.csv"), &tables)?;
    for (i, table) in tables.iter().enumerate() {
        let of = match i {
            0 => String::new(),
            _ => format!("-{}", table.protocol.name()),
        };
        draw(dir, &format!("ppl{of}"), table, newest)?;
        draw_time(dir, &format!("time{of}"), table, newest)?;
    }
    Ok(text)
}

/// Title and origin of tables.
pub fn head(
    title: &str,
    model: &str,
    dtype: &str,
    trained: usize,
    checkpoint: &str,
    data: &str,
) -> String {
    let checkpoint = checkpoint.get(..12).unwrap_or(checkpoint);
    let mut text = format!(
        "# {title}\n\n- model: {model} ({dtype}, trained at {trained} tokens, checkpoint {checkpoint})\n\
         - data: {data}\n"
    );
    if model == "builtin:random" {
        text.push_str(
            "- note: builtin:random is a generated checkpoint with random weights: its numbers show \
             that everything runs, not which method helps\n",
        );
    }
    text
}

/// The perplexities of a table.
fn draw(dir: &Path, stem: &str, table: &Table, newest: &Record) -> Result<()> {
    let mut curves = curves(table, |record| {
        Some((record.perplexity?, record.nll_se.unwrap_or(0.0)))
    });
    curves.extend(table.published.iter().map(|published| {
        let method = published.method.as_deref();
        Curve {
            name: published.label(),
            points: (published.perplexity.iter())
                .map(|(&length, &perplexity)| (length, perplexity, 0.0))
                .collect(),
            kind: CurveKind::Published {
                method: table.methods.iter().position(|&name| Some(name) == method),
            },
        }
    }));
    if !table.floors.is_empty() {
        let lengths = table.lengths.iter();
        let floors = lengths.filter_map(|&length| table.floor(length));
        curves.push(Curve {
            name: "floor".to_owned(),
            points: floors
                .map(|floor| (floor.length, floor.perplexity(), 0.0))
                .collect(),
            kind: CurveKind::Floor,
        });
    }
    if curves.iter().all(|curve| curve.points.is_empty()) {
        crate::tell(format_args!(
            "warning: no finite perplexity under {}: no figure",
            table.protocol.name()
        ));
        return Ok(());
    }
    draw_curves(dir, stem, table, newest, "perplexity", curves)
}

/// What a table's passes took, if a method has passes of several lengths. A length that a longer pass served has no
/// time of its own.
fn draw_time(dir: &Path, stem: &str, table: &Table, newest: &Record) -> Result<()> {
    let curves = curves(table, |record| {
        let own = record.pass_length == record.length;
        own.then(|| (1e3 / record.tokens_per_second, 0.0))
    });
    if curves.iter().all(|curve| curve.points.len() < 2) {
        return Ok(());
    }
    draw_curves(dir, stem, table, newest, "milliseconds per token", curves)
}

/// A curve for each method of a table, of the value and the standard error of its logarithm that records have.
fn curves(table: &Table, value: impl Fn(&Record) -> Option<(f64, f64)>) -> Vec<Curve> {
    let curve = |&method: &&str| Curve {
        name: method.to_owned(),
        points: (table.lengths.iter())
            .filter_map(|&length| table.record(method, length))
            .filter_map(|record| value(record).map(|(value, error)| (record.length, value, error)))
            .collect(),
        kind: CurveKind::Method,
    };
    table.methods.iter().map(curve).collect()
}

fn draw_curves(
    dir: &Path,
    stem: &str,
    table: &Table,
    newest: &Record,
    quantity: &'static str,
    curves: Vec<Curve>,
) -> Result<()> {
    let figure = LengthFigure {
        title: format!(
            "{} on {}",
            file_name(&newest.model),
            file_name(&newest.data)
        ),
        subtitle: format!(
            "protocol {}, {} weights",
            table.protocol.name(),
            newest.dtype
        ),
        quantity,
        trained: newest.trained_length,
        curves,
    };
    let path = |extension: &str| dir.join(stem).with_extension(extension);
    plot::draw(&figure, &path("svg"), &path("png")).context("drawing the figure")
}

/// The last part of a path, for titles.
pub fn file_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}
