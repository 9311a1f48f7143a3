//! Tables of tasks: scores by method and context length, and the effective length.

use anyhow::{Context, Result};

use super::markdown::{length_labels, padded, row_name};
use crate::config::RunConfig;
use crate::folder::{Provenance, TaskRecord, score_text};
use crate::measure::tasks::wilson;
use crate::tasks::Scorer;

/// The table of one task under one scorer.
pub struct Table<'a> {
    /// Name of the task.
    pub task: String,
    /// How answers were judged.
    pub scorer: Scorer,
    /// Rows: all methods of the config.
    pub methods: Vec<&'a str>,
    /// Columns, ascending.
    pub lengths: &'a [usize],
    /// Depths of a cell, ascending, 0 to 1.
    pub depths: Vec<f64>,
    /// The cells, one for each depth, in the order in which they were measured.
    pub records: Vec<&'a TaskRecord>,
    /// The newest task record of the run.
    pub newest: &'a TaskRecord,
    /// Trials of a cell, as the config asks.
    pub keys: usize,
    /// Mean score at which a length counts as mastered.
    pub threshold: f64,
}

/// The tables of a run: one for each task and scorer that has records, in the order of the config.
///
/// # Errors
/// The config names a task that is not known.
pub fn tables<'a>(config: &'a RunConfig, records: &'a [TaskRecord]) -> Result<Vec<Table<'a>>> {
    let (Some(needle), Some(newest)) = (&config.needle, records.last()) else {
        return Ok(Vec::new());
    };
    let mut tables = Vec::new();
    for task in needle.tasks()? {
        for scorer in needle.scorers() {
            let records: Vec<&TaskRecord> = records
                .iter()
                .filter(|record| record.task == task.name && record.scorer == scorer)
                .collect();
            if records.is_empty() {
                continue;
            }
            let methods = config.methods.iter().map(|method| method.name.as_str());
            tables.push(Table {
                task: task.name.clone(),
                scorer,
                methods: methods.collect(),
                lengths: &needle.lengths,
                depths: needle.depths_of(&task)?,
                records,
                newest,
                keys: needle.keys,
                threshold: needle.threshold,
            });
        }
    }
    Ok(tables)
}

impl<'a> Table<'a> {
    /// The cell of a method, length and depth: the newest of its records, of which a folder merged
    /// by hand may hold several.
    pub fn record(&self, method: &str, length: usize, depth: f64) -> Option<&'a TaskRecord> {
        let is_cell = |record: &&&TaskRecord| {
            let Provenance {
                method: of,
                length: at,
                ..
            } = &record.provenance;
            of == method && *at == length && record.depth == depth
        };
        self.records.iter().rev().find(is_cell).copied()
    }

    /// Mean score over the depths, and the number of trials; `None` if a depth has no record.
    fn mean(&self, method: &str, length: usize) -> Option<(f64, usize)> {
        let depths = self.depths.iter();
        let records = depths.map(|&depth| self.record(method, length, depth));
        let records: Vec<&TaskRecord> = records.collect::<Option<_>>()?;
        let trials = records.iter().map(|record| record.trials.len()).sum();
        let sum: f64 = records.iter().map(|record| record.score).sum();
        Some((sum / records.len() as f64, trials))
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let labels = length_labels(self.lengths);
        let mut rows = vec![vec!["method".to_owned()]];
        rows[0].extend(labels.iter().cloned());
        rows[0].push("effective".to_owned());
        for &method in &self.methods {
            let lengths = self.lengths.iter();
            let means: Vec<_> = lengths.map(|&length| self.mean(method, length)).collect();
            let cell = |mean: &Option<(f64, usize)>| match *mean {
                Some((mean, trials)) => score_text(mean, wilson(mean, trials)),
                None => "-".to_owned(),
            };
            let mut row = vec![row_name(method)];
            row.extend(means.iter().map(cell));
            let scores: Vec<_> = means.iter().map(|mean| mean.map(|mean| mean.0)).collect();
            row.push(effective_length(&scores, self.threshold, &labels));
            rows.push(row);
        }
        padded(&rows)
    }
}

/// The effective length in words; `scores` and `labels` are by length, ascending.
fn effective_length(scores: &[Option<f64>], threshold: f64, labels: &[String]) -> String {
    let count = mastered(scores, threshold);
    // The first length that is not mastered was not measured: longer ones may be.
    let open = scores.get(count).is_some_and(Option::is_none);
    match (count, open) {
        (0, true) => "-".to_owned(),
        (0, false) => format!("< {}", labels[0]),
        (_, true) => format!("≥ {}", labels[count - 1]),
        (_, false) => labels[count - 1].clone(),
    }
}

/// The number of lengths, from the shortest, that reach the threshold without a gap: RULER's
/// effective length (arXiv 2404.06654).
fn mastered(scores: &[Option<f64>], threshold: f64) -> usize {
    // A mean of fractions may miss an equal threshold by rounding.
    let reaches = |score: &&Option<f64>| score.is_some_and(|score| score >= threshold - 1e-9);
    scores.iter().take_while(reaches).count()
}

/// Columns of `needle.csv`.
const COLUMNS: [&str; 15] = [
    "task",
    "scorer",
    "method",
    "length",
    "depth",
    "achieved_depth",
    "score",
    "low",
    "high",
    "correct",
    "asked",
    "trials",
    "seconds",
    "tokens_per_second",
    "peak_bytes",
];

/// The content of `needle.csv`: a line for each cell.
///
/// # Errors
/// A line cannot be written.
pub fn csv(tables: &[Table]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for table in tables {
        for &method in &table.methods {
            for &length in table.lengths {
                let depths = table.depths.iter();
                for record in depths.filter_map(|&depth| table.record(method, length, depth)) {
                    csv.write_record(fields(record))?;
                }
            }
        }
    }
    csv.into_inner().context("needle.csv")
}

/// The fields of a cell, in the order of [`COLUMNS`].
fn fields(record: &TaskRecord) -> [String; COLUMNS.len()] {
    let provenance = &record.provenance;
    [
        record.task.clone(),
        record.scorer.name().to_owned(),
        provenance.method.clone(),
        provenance.length.to_string(),
        record.depth.to_string(),
        record.achieved_depth.to_string(),
        record.score.to_string(),
        record.interval.0.to_string(),
        record.interval.1.to_string(),
        record.correct.to_string(),
        record.asked.to_string(),
        record.trials.len().to_string(),
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
    fn the_effective_length_ends_at_the_first_gap() {
        let mastered = |scores: &[f64]| {
            let scores: Vec<Option<f64>> = scores.iter().copied().map(Some).collect();
            super::mastered(&scores, 0.85)
        };
        assert_eq!(mastered(&[1.0, 0.9, 0.85]), 3);
        assert_eq!(mastered(&[1.0, 0.8, 1.0]), 1);
        assert_eq!(mastered(&[0.84]), 0);
        // In floating point, three fifths summed are below 0.6.
        let sum: f64 = [0.2; 3].iter().sum();
        assert!(sum != 0.6 && super::mastered(&[Some(sum)], 0.6) == 1);
        assert_eq!(super::mastered(&[Some(1.0), None, Some(1.0)], 0.5), 1);
    }

    #[test]
    fn an_effective_length_says_what_is_not_measured() {
        let labels = ["1K", "2K", "4K"].map(String::from);
        let effective = |scores: [Option<f64>; 3]| effective_length(&scores, 0.85, &labels);
        let (good, bad) = (Some(0.9), Some(0.1));
        assert_eq!(effective([good, good, good]), "4K");
        assert_eq!(effective([good, bad, good]), "1K");
        assert_eq!(effective([bad, good, good]), "< 1K");
        assert_eq!(effective([good, good, None]), "≥ 2K");
        assert_eq!(effective([None, good, good]), "-");
    }

    #[test]
    fn every_cell_is_a_line_of_the_csv() {
        let example = Example::new();
        let tables = tables(&example.config, &example.tasks).unwrap();
        let text = String::from_utf8(csv(&tables).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + example.tasks.len());
        assert_eq!(
            lines[1],
            "pass-key,teacher-forced,plain,1024,0,0,1,0.5,1,5,5,5,2,4096,1000"
        );
    }
}
