//! The tables of perplexities: methods, published numbers and the floor by context length.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::RunConfig;
use crate::floor::{self, Floor};
use crate::plot;
use crate::protocol::{Protocol, SeOver};
use crate::published::Published;
use crate::records::{Record, write_whole};

/// Rows and columns of one protocol's table.
pub struct Table<'a> {
    /// How everything in it was measured.
    pub protocol: Protocol,
    /// The protocol with its settings, in words.
    pub detail: &'a str,
    /// Rows: methods that have records.
    pub methods: Vec<&'a str>,
    /// Columns, ascending.
    pub lengths: Vec<usize>,
    /// What was measured.
    pub records: Vec<&'a Record>,
    /// More rows, of others.
    pub published: &'a [Published],
    /// The last row, where it is known.
    pub floors: Vec<&'a Floor>,
}

/// The tables of a run, in the config's order of protocols and methods.
pub fn tables<'a>(
    records: &'a [Record],
    floors: &'a [Floor],
    config: &'a RunConfig,
) -> Vec<Table<'a>> {
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
            let published = match protocol {
                Protocol::Packed => &config.published[..],
                _ => &[],
            };
            let mut lengths: Vec<usize> = records.iter().map(|record| record.length).collect();
            lengths.extend(published.iter().flat_map(|row| row.perplexity.keys()));
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
                published,
                floors: floors.filter(|floor| floor.protocol == protocol).collect(),
            })
        })
        .collect()
}

impl Table<'_> {
    /// A method's cell.
    pub fn record(&self, method: &str, length: usize) -> Option<&Record> {
        // The last one is the newest, where a folder put together by hand holds several.
        let mut records = self.records.iter().rev();
        records
            .find(|record| record.method == method && record.length == length)
            .copied()
    }

    /// The floor under a length.
    pub fn floor(&self, length: usize) -> Option<&Floor> {
        let mut floors = self.floors.iter();
        floors.find(|floor| floor.length == length).copied()
    }

    /// Markdown, with columns padded so that it reads in a terminal too.
    pub fn markdown(&self) -> String {
        let mut rows = vec![vec!["method".to_owned()]];
        rows[0].extend(length_labels(&self.lengths));
        for &method in &self.methods {
            let mut row = vec![method.replace('|', "\\|")];
            let cells = self.lengths.iter();
            row.extend(cells.map(|&length| self.record(method, length).map_or("-".into(), number)));
            rows.push(row);
        }
        for published in self.published {
            let mut row = vec![published.label().replace('|', "\\|")];
            let cells = self.lengths.iter();
            row.extend(cells.map(|&length| published.cell(length)));
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
pub fn number(record: &Record) -> String {
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

/// Columns of `table.csv`.
const COLUMNS: [&str; 14] = [
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
];

/// Writes `table.csv`: a line for each cell.
///
/// # Errors
/// When it cannot be written.
pub fn write_csv(path: &Path, tables: &[Table]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
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
        for published in table.published {
            for (length, perplexity) in &published.perplexity {
                let mut row = vec![table.protocol.name().to_owned(), published.label()];
                row.extend([length.to_string(), perplexity.to_string()]);
                row.resize(COLUMNS.len(), String::new());
                csv.write_record(row)?;
            }
        }
        let floors = table.lengths.iter();
        for floor in floors.filter_map(|&length| table.floor(length)) {
            let mut row = vec![table.protocol.name().to_owned(), floor::ROW.to_owned()];
            row.extend([floor.length.to_string(), floor.perplexity().to_string()]);
            row.extend([floor.nll.to_string(), String::new(), String::new()]);
            row.extend([floor.windows, floor.fed, floor.scored].map(|count| count.to_string()));
            row.resize(COLUMNS.len(), String::new());
            csv.write_record(row)?;
        }
    }
    write_whole(path, &csv.into_inner().context("table.csv")?)
}
