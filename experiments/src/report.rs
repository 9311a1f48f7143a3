//! Tables and figures from records.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::RunConfig;
use crate::floor::{self, Floor};
use crate::needle::{self, NeedleRecord};
use crate::plot::{self, Curve, PplFigure};
use crate::protocol::{Protocol, SeOver};
use crate::records::{self, Record, write_whole};

/// `longspan report DIR`: everything again from `config.toml` and `records.jsonl`.
pub fn report(dir: &Path) -> Result<()> {
    let (perplexities, needles) = records::load_records(dir)?;
    let path = dir.join("config.toml");
    let config = RunConfig::load(&path, &[])?;
    write(dir, &perplexities, &needles, &config)
}

/// Rows and columns of one protocol's table.
struct Table<'a> {
    protocol: Protocol,
    detail: &'a str,
    methods: Vec<&'a str>,
    lengths: Vec<usize>,
    records: Vec<&'a Record>,
    floors: Vec<&'a Floor>,
}

/// The tables of a run, in the config's order of protocols and methods.
fn tables<'a>(records: &'a [Record], floors: &'a [Floor], config: &'a RunConfig) -> Vec<Table<'a>> {
    let protocols = config
        .perplexity
        .iter()
        .flat_map(|table| table.protocol.list());
    protocols
        .filter_map(|protocol| {
            let records: Vec<&Record> = records
                .iter()
                .filter(|record| record.protocol == protocol)
                .collect();
            let mut lengths: Vec<usize> = records.iter().map(|record| record.length).collect();
            lengths.sort_unstable();
            lengths.dedup();
            let known = |name: &&str| records.iter().any(|record| record.method == **name);
            let methods = config.methods.iter().map(|method| method.name.as_str());
            let floors = floors.iter();
            Some(Table {
                protocol,
                detail: &records.first()?.protocol_detail,
                methods: methods.filter(known).collect(),
                lengths,
                records,
                floors: floors.filter(|floor| floor.protocol == protocol).collect(),
            })
        })
        .collect()
}

impl Table<'_> {
    fn record(&self, method: &str, length: usize) -> Option<&Record> {
        // The last one is the newest, where a folder put together by hand holds several.
        let mut records = self.records.iter().rev();
        records
            .find(|record| record.method == method && record.length == length)
            .copied()
    }

    fn floor(&self, length: usize) -> Option<&Floor> {
        let mut floors = self.floors.iter();
        floors.find(|floor| floor.length == length).copied()
    }

    /// Markdown, with columns padded so that it reads in a terminal too.
    fn markdown(&self) -> String {
        let mut rows = vec![vec!["method".to_owned()]];
        rows[0].extend(length_labels(&self.lengths));
        for &method in &self.methods {
            let mut row = vec![method.replace('|', "\\|")];
            let cells = self.lengths.iter();
            row.extend(cells.map(|&length| self.record(method, length).map_or("-".into(), number)));
            rows.push(row);
        }
        if !self.floors.is_empty() {
            let mut row = vec![floor::ROW.to_owned()];
            let cells = self.lengths.iter().map(|&length| self.floor(length));
            row.extend(cells.map(|floor| {
                floor.map_or("-".into(), |floor| format!("{:.3}", floor.perplexity()))
            }));
            rows.push(row);
        }
        padded(&rows)
    }
}

/// Heads of columns: in units of 1,024 where all lengths are such, else plain, so that they compare.
pub fn length_labels(lengths: &[usize]) -> Vec<String> {
    let odd = |&length: &usize| length > 1024 && !length.is_multiple_of(1024);
    let plain = lengths.iter().any(odd);
    let label = |&length: &usize| match plain {
        true => length.to_string(),
        false => plot::length_label(length),
    };
    lengths.iter().map(label).collect()
}

/// A Markdown table, the first row its head, with columns padded so that it reads in a terminal too.
pub fn padded(rows: &[Vec<String>]) -> String {
    let width: Vec<usize> = (0..rows[0].len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width[column] - cell.chars().count());
            match column {
                0 => write!(text, "| {cell}{pad} "),
                _ => write!(text, "| {pad}{cell} "),
            }
            .expect("writing to a string");
        }
        text.push_str("|\n");
        if i == 0 {
            for (column, width) in width.iter().enumerate() {
                let dashes = "-".repeat(*width);
                text.push_str(&match column {
                    0 => format!("| {dashes} "),
                    _ => format!("| {}: ", &dashes[..width - 1]),
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A perplexity with its standard error; a star marks an error over tokens, which is too small.
fn number(record: &Record) -> String {
    let Some(perplexity) = record.perplexity else {
        return "not finite".to_owned();
    };
    let Some(se) = record.nll_se else {
        return format!("{perplexity:.3}");
    };
    let error = perplexity * se;
    let star = match record.se_over {
        SeOver::Groups => "",
        SeOver::Tokens => "*",
    };
    match perplexity {
        p if p >= 1e6 => format!("{p:.2e} ±{error:.0e}{star}"),
        p if p >= 100.0 => format!("{p:.1} ±{error:.1}{star}"),
        p => format!("{p:.3} ±{error:.3}{star}"),
    }
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
    if !perplexities.is_empty() {
        texts.push(write_perplexity(dir, perplexities, config)?);
    }
    if let (Some(table), false) = (&config.needle, needles.is_empty()) {
        texts.push(needle::write(dir, needles, config, table)?);
    }
    let text = texts.join("\n");
    crate::print(&format!("{text}\nwritten to {}\n", dir.display()))
}

/// Writes `table.md`, `table.csv` and the figures; returns the tables.
fn write_perplexity(dir: &Path, records: &[Record], config: &RunConfig) -> Result<String> {
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
    }
    write_whole(&dir.join("table.md"), text.as_bytes())?;
    write_csv(&dir.join("table.csv"), &tables)?;
    for (i, table) in tables.iter().enumerate() {
        let stem = match i {
            0 => "ppl".to_owned(),
            _ => format!("ppl-{}", table.protocol.name()),
        };
        draw(dir, &stem, table, newest)?;
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

fn draw(dir: &Path, stem: &str, table: &Table, newest: &Record) -> Result<()> {
    let point = |record: &Record| {
        Some((
            record.length,
            record.perplexity?,
            record.nll_se.unwrap_or(0.0),
        ))
    };
    let mut curves: Vec<Curve> = table
        .methods
        .iter()
        .map(|&method| {
            let lengths = table.lengths.iter();
            let found = lengths.filter_map(|&length| table.record(method, length));
            Curve {
                name: method.to_owned(),
                points: found.filter_map(point).collect(),
                floor: false,
            }
        })
        .collect();
    if !table.floors.is_empty() {
        let lengths = table.lengths.iter();
        let floors = lengths.filter_map(|&length| table.floor(length));
        curves.push(Curve {
            name: "floor".to_owned(),
            points: floors
                .map(|floor| (floor.length, floor.perplexity(), 0.0))
                .collect(),
            floor: true,
        });
    }
    if curves.iter().all(|curve| curve.points.is_empty()) {
        crate::tell(format_args!(
            "warning: no finite perplexity under {}: no figure",
            table.protocol.name()
        ));
        return Ok(());
    }
    let figure = PplFigure {
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

fn write_csv(path: &Path, tables: &[Table]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
        "protocol",
        "method",
        "length",
        "perplexity",
        "nll",
        "nll_se",
        "se_over",
        "windows",
        "fed",
        "scored",
        "pass_length",
        "seconds",
        "tokens_per_second",
        "peak_bytes",
    ])?;
    let optional = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    for table in tables {
        for &method in &table.methods {
            for record in table
                .lengths
                .iter()
                .filter_map(|&length| table.record(method, length))
            {
                csv.write_record([
                    table.protocol.name().to_owned(),
                    method.to_owned(),
                    record.length.to_string(),
                    optional(record.perplexity),
                    optional(record.nll),
                    optional(record.nll_se),
                    record.se_over.name().to_owned(),
                    record.windows.to_string(),
                    record.fed.to_string(),
                    record.scored.to_string(),
                    record.pass_length.to_string(),
                    record.seconds.to_string(),
                    record.tokens_per_second.to_string(),
                    record.peak_bytes.to_string(),
                ])?;
            }
        }
        let floors = table.lengths.iter();
        for floor in floors.filter_map(|&length| table.floor(length)) {
            let none = String::new;
            csv.write_record([
                table.protocol.name().to_owned(),
                floor::ROW.to_owned(),
                floor.length.to_string(),
                floor.perplexity().to_string(),
                floor.nll.to_string(),
                none(),
                none(),
                floor.windows.to_string(),
                floor.fed.to_string(),
                floor.scored.to_string(),
                none(),
                none(),
                none(),
                none(),
            ])?;
        }
    }
    write_whole(path, &csv.into_inner().context("table.csv")?)
}
