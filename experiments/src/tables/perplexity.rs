//! Tables of perplexities: methods, published numbers and the floor by context length.

use anyhow::{Context, Result};

use super::markdown::{length_labels, padded, row_name};
use crate::config::{Published, RunConfig};
use crate::folder::{PerplexityRecord, Provenance};
use crate::measure::perplexity::floor::{self, Floor};
use crate::protocols::ProtocolName;

/// The table of one protocol.
pub struct Table<'a> {
    /// The protocol of every number in it.
    pub protocol: ProtocolName,
    /// The protocol with its options, in words.
    pub detail: &'a str,
    /// Rows: methods that have records.
    pub methods: Vec<&'a str>,
    /// Columns, ascending.
    pub lengths: Vec<usize>,
    /// The cells, in the order in which they were measured.
    pub records: Vec<&'a PerplexityRecord>,
    /// Further rows, not measured in this run.
    pub published: &'a [Published],
    /// The last row; empty if the floor is not known.
    pub floors: Vec<&'a Floor>,
    /// Provenance of the newest perplexity of the run.
    pub newest: &'a Provenance,
}

/// The tables of a run: one for each protocol that has records, rows in the order of the config.
pub fn tables<'a>(
    config: &'a RunConfig,
    records: &'a [PerplexityRecord],
    floors: &'a [Floor],
) -> Vec<Table<'a>> {
    let (Some(perplexity), Some(newest)) = (&config.perplexity, records.last()) else {
        return Vec::new();
    };
    let table = |protocol: ProtocolName| {
        let records: Vec<&PerplexityRecord> = records
            .iter()
            .filter(|record| record.protocol == protocol)
            .collect();
        // Published numbers are measured as Qwen's table is.
        let published = if protocol.name() == "packed" {
            &config.published[..]
        } else {
            &[]
        };
        let measured = records.iter().map(|record| record.provenance.length);
        let others = published.iter().flat_map(|row| row.perplexity.keys());
        let mut lengths: Vec<usize> = measured.chain(others.copied()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let has_records =
            |name: &&str| (records.iter()).any(|record| record.provenance.method == **name);
        let methods = config.methods.iter().map(|method| method.name.as_str());
        Some(Table {
            protocol,
            detail: &records.first()?.protocol_detail,
            methods: methods.filter(has_records).collect(),
            lengths,
            records,
            published,
            floors: floors
                .iter()
                .filter(|floor| floor.protocol == protocol)
                .collect(),
            newest: &newest.provenance,
        })
    };
    perplexity
        .protocols()
        .into_iter()
        .filter_map(table)
        .collect()
}

impl<'a> Table<'a> {
    /// The cell of a method and length: the newest of its records, of which a folder merged by hand
    /// may hold several.
    pub fn record(&self, method: &str, length: usize) -> Option<&'a PerplexityRecord> {
        let is_cell = |record: &&&PerplexityRecord| {
            record.provenance.method == method && record.provenance.length == length
        };
        self.records.iter().rev().find(is_cell).copied()
    }

    /// The cells of a method, by length.
    pub fn row(&self, method: &str) -> impl Iterator<Item = &'a PerplexityRecord> {
        let lengths = self.lengths.iter();
        lengths.filter_map(move |&length| self.record(method, length))
    }

    /// The floor at a length.
    pub fn floor(&self, length: usize) -> Option<&'a Floor> {
        let mut floors = self.floors.iter();
        floors.find(|floor| floor.length == length).copied()
    }

    /// The floors, by length.
    pub fn floor_row(&self) -> impl Iterator<Item = &'a Floor> {
        self.lengths.iter().filter_map(|&length| self.floor(length))
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let none = || "-".to_owned();
        let row = |name: &str, cell: &dyn Fn(usize) -> String| {
            let mut row = vec![row_name(name)];
            row.extend(self.lengths.iter().map(|&length| cell(length)));
            row
        };
        let mut rows = vec![vec!["method".to_owned()]];
        rows[0].extend(length_labels(&self.lengths));
        for &method in &self.methods {
            rows.push(row(method, &|length| {
                let record = self.record(method, length);
                record.map_or_else(none, PerplexityRecord::number)
            }));
        }
        for published in self.published {
            rows.push(row(&published.label(), &|length| published.cell(length)));
        }
        if !self.floors.is_empty() {
            rows.push(row(floor::ROW, &|length| {
                let floor = self.floor(length);
                floor.map_or_else(none, |floor| format!("{:.3}", floor.perplexity()))
            }));
        }
        padded(&rows)
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

/// The content of `table.csv`: a line for each cell, published number and floor.
///
/// # Errors
/// A line cannot be written.
pub fn csv(tables: &[Table]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for table in tables {
        let protocol = table.protocol.name();
        for &method in &table.methods {
            for record in table.row(method) {
                csv.write_record(fields(protocol, record))?;
            }
        }
        for published in table.published {
            for (length, perplexity) in &published.perplexity {
                let mut line = vec![protocol.to_owned(), published.label()];
                line.extend([length.to_string(), perplexity.to_string()]);
                line.resize(COLUMNS.len(), String::new());
                csv.write_record(line)?;
            }
        }
        for floor in table.floor_row() {
            let mut line = vec![protocol.to_owned(), floor::ROW.to_owned()];
            line.extend([floor.length.to_string(), floor.perplexity().to_string()]);
            line.extend([floor.nll.to_string(), String::new(), String::new()]);
            line.extend([floor.windows, floor.fed, floor.scored].map(|count| count.to_string()));
            line.resize(COLUMNS.len(), String::new());
            csv.write_record(line)?;
        }
    }
    csv.into_inner().context("table.csv")
}

/// The fields of a cell, in the order of [`COLUMNS`].
fn fields(protocol: &str, record: &PerplexityRecord) -> [String; COLUMNS.len()] {
    let optional = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let provenance = &record.provenance;
    [
        protocol.to_owned(),
        provenance.method.clone(),
        provenance.length.to_string(),
        optional(record.perplexity),
        optional(record.nll),
        optional(record.nll_se),
        record.se_over.name().to_owned(),
        record.windows.to_string(),
        record.fed.to_string(),
        record.scored.to_string(),
        record.pass_length.to_string(),
        provenance.seconds.to_string(),
        provenance.tokens_per_second.to_string(),
        provenance.peak_bytes.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example::Example;

    #[test]
    fn the_newest_record_of_a_cell_counts() {
        let mut example = Example::new();
        let mut newer = example.perplexities[0].clone();
        newer.perplexity = Some(9.0);
        example.perplexities.push(newer);
        let tables = tables(&example.config, &example.perplexities, &example.floors);
        assert_eq!(
            tables[0].record("plain", 1024).unwrap().perplexity,
            Some(9.0)
        );
        assert_eq!(tables[0].row("plain").count(), 2);
    }

    #[test]
    fn every_number_is_a_line_of_the_csv() {
        let example = Example::new();
        let tables = tables(&example.config, &example.perplexities, &example.floors);
        let text = String::from_utf8(csv(&tables).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 8 + 2 + 2);
        let nll = 4.5f64.ln();
        let cell = format!("packed,plain,1024,4.5,{nll},0.01,groups,8,8192,8184,1024,2,4096,1000");
        assert_eq!(lines[1], cell);
        assert_eq!(lines[5], "packed,published: theirs,1024,4.23,,,,,,,,,,");
        let floor = lines[7];
        assert!(floor.starts_with("packed,floor (exact),1024,2.718281828459045,1,,,8,8192,8184,"));
        assert!(lines[9].starts_with("half,plain,1024,"), "{}", lines[9]);
    }
}
