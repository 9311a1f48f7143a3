//! Tables and heat maps of needles.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::config::{NeedleConfig, Scorer};
use super::record::NeedleRecord;
use super::run::NEEDLE_CELLS;
use super::score::wilson;
use crate::config::RunConfig;
use crate::memory::{self, Refused};
use crate::plot::{self, HeatFigure, Panel};
use crate::records::write_whole;
use crate::report::{file_name, head, length_labels, padded};

/// Cells of one task under one scorer.
struct Table<'a> {
    task: String,
    scorer: Scorer,
    methods: Vec<&'a str>,
    lengths: &'a [usize],
    depths: Vec<f64>,
    records: Vec<&'a NeedleRecord>,
}

/// A finished cell, for a log.
pub fn one_line(record: &NeedleRecord) -> String {
    format!(
        "{}, {} tokens, {} at depth {}, {}: {} ({:.1} s)",
        record.method,
        record.length,
        record.task,
        percent(record.depth),
        record.scorer.name(),
        score_text(record.score, record.interval),
        record.seconds
    )
}

/// Writes `needle.md`, `needle.csv` and the heat maps; returns the tables.
///
/// # Errors
/// A file that cannot be written.
pub fn write(
    dir: &Path,
    records: &[NeedleRecord],
    refused: &[Refused],
    config: &RunConfig,
    needle: &NeedleConfig,
) -> Result<String> {
    let Some(newest) = records.last() else {
        return Ok(String::new());
    };
    let tables = tables(records, config, needle)?;
    let mut text = head(
        "Needle in a haystack",
        &newest.model,
        &newest.dtype,
        newest.trained_length,
        &newest.checkpoint,
        &newest.data,
    );
    let threshold = percent(needle.threshold);
    for table in &tables {
        let trials = needle.keys * table.depths.len();
        let markdown = table.markdown(needle.threshold);
        write!(
            text,
            "\n## {}, {}\n\n{}; mean score (%) over {} depths of {} trials each, with Wilson's 95 % interval for \
             {trials} trials; effective: the longest length at which it and all shorter ones reach {threshold}\n\n\
             {markdown}",
            table.task,
            table.scorer.name(),
            table.scorer.describe(),
            table.depths.len(),
            needle.keys,
        )?;
    }
    text.push_str(&memory::note(refused, NEEDLE_CELLS));
    write_whole(&dir.join("needle.md"), text.as_bytes())?;
    write_csv(&dir.join("needle.csv"), &tables)?;
    let (several_tasks, first) = (needle.tasks()?.len() > 1, needle.scorers()[0]);
    for table in &tables {
        let mut stem = "needle".to_owned();
        if several_tasks {
            stem += &format!("-{}", table.task);
        }
        if table.scorer != first {
            stem += &format!("-{}", table.scorer.name());
        }
        let figure = table.figure(newest, needle.threshold);
        let path = |extension: &str| dir.join(format!("{stem}.{extension}"));
        plot::draw_heatmaps(&figure, &path("svg"), &path("png"))
            .context("drawing the heat maps")?;
    }
    Ok(text)
}

/// The tables of a run, in the config's order of tasks and scorers.
fn tables<'a>(
    records: &'a [NeedleRecord],
    config: &'a RunConfig,
    needle: &'a NeedleConfig,
) -> Result<Vec<Table<'a>>> {
    let mut tables = Vec::new();
    for task in needle.tasks()? {
        for scorer in needle.scorers() {
            let of_table =
                |record: &&NeedleRecord| record.task == task.name && record.scorer == scorer;
            let records: Vec<&NeedleRecord> = records.iter().filter(of_table).collect();
            if records.is_empty() {
                continue;
            }
            tables.push(Table {
                task: task.name.clone(),
                scorer,
                methods: config
                    .methods
                    .iter()
                    .map(|method| method.name.as_str())
                    .collect(),
                lengths: &needle.lengths,
                depths: needle.depths()?,
                records,
            });
        }
    }
    Ok(tables)
}

impl Table<'_> {
    fn record(&self, method: &str, length: usize, depth: f64) -> Option<&NeedleRecord> {
        // The last one is the newest, where a folder put together by hand holds several.
        let mut records = self.records.iter().rev();
        let is = |r: &&&NeedleRecord| r.method == method && r.length == length && r.depth == depth;
        records.find(is).copied()
    }

    /// Mean score over the depths, and the number of trials behind it; none while a depth is missing.
    fn mean(&self, method: &str, length: usize) -> Option<(f64, usize)> {
        let depths = self.depths.iter();
        let records = depths.map(|&depth| self.record(method, length, depth));
        let records: Vec<&NeedleRecord> = records.collect::<Option<_>>()?;
        let trials = records.iter().map(|record| record.trials.len()).sum();
        let sum: f64 = records.iter().map(|record| record.score).sum();
        Some((sum / records.len() as f64, trials))
    }

    fn markdown(&self, threshold: f64) -> String {
        let mut rows = vec![vec!["method".to_owned()]];
        let labels = length_labels(self.lengths);
        rows[0].extend(labels.clone());
        rows[0].push("effective".to_owned());
        for &method in &self.methods {
            let mut row = vec![method.replace('|', "\\|")];
            let means: Vec<Option<(f64, usize)>> = self
                .lengths
                .iter()
                .map(|&length| self.mean(method, length))
                .collect();
            let number = |mean: &Option<(f64, usize)>| match *mean {
                Some((mean, trials)) => score_text(mean, wilson(mean, trials)),
                None => "-".to_owned(),
            };
            row.extend(means.iter().map(number));
            let scores = means.iter().map(|mean| mean.map(|mean| mean.0));
            let count = mastered(scores, threshold);
            // Where counting ended at a length that was not measured, nothing is known of what comes after.
            let open = means.get(count).is_some_and(Option::is_none);
            row.push(match (count, open) {
                (0, true) => "-".to_owned(),
                (0, false) => format!("< {}", labels[0]),
                (_, true) => format!("≥ {}", labels[count - 1]),
                (_, false) => labels[count - 1].clone(),
            });
            rows.push(row);
        }
        padded(&rows)
    }

    fn figure(&self, newest: &NeedleRecord, threshold: f64) -> HeatFigure {
        let panel = |&method: &&str| {
            let column = |&length: &usize| -> Vec<Option<f64>> {
                let score = |&depth: &f64| Some(self.record(method, length, depth)?.score);
                self.depths.iter().map(score).collect()
            };
            Panel {
                name: method.to_owned(),
                scores: self.lengths.iter().map(column).collect(),
            }
        };
        HeatFigure {
            title: format!(
                "{}: {} in {}",
                file_name(&newest.model),
                self.task,
                file_name(&newest.data)
            ),
            subtitle: format!(
                "{}, {} trials per cell, {} weights",
                self.scorer.name(),
                newest.trials.len(),
                newest.dtype
            ),
            trained: newest.trained_length,
            threshold,
            lengths: self.lengths.to_vec(),
            depths: self.depths.clone(),
            panels: self.methods.iter().map(panel).collect(),
        }
    }
}

/// How many lengths from the shortest on reach the threshold without a gap: RULER's effective length (arXiv
/// 2404.06654).
fn mastered(scores: impl Iterator<Item = Option<f64>>, threshold: f64) -> usize {
    // A mean of fractions may miss a threshold that it equals by its rounding.
    let reaches = |score: &Option<f64>| score.is_some_and(|score| score >= threshold - 1e-9);
    scores.take_while(reaches).count()
}

/// A fraction in percent, with a decimal where it has one.
fn percent(fraction: f64) -> String {
    format!("{} %", (fraction * 1000.0).round() / 10.0)
}

/// A score in percent with its interval.
fn score_text(score: f64, (low, high): (f64, f64)) -> String {
    let percent = |fraction: f64| format!("{:.0}", fraction * 100.0);
    format!("{} ({}–{})", percent(score), percent(low), percent(high))
}

fn write_csv(path: &Path, tables: &[Table]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
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
    ])?;
    for table in tables {
        for &method in &table.methods {
            for &length in table.lengths {
                let depths = table.depths.iter();
                for record in depths.filter_map(|&depth| table.record(method, length, depth)) {
                    csv.write_record([
                        table.task.clone(),
                        table.scorer.name().to_owned(),
                        method.to_owned(),
                        length.to_string(),
                        record.depth.to_string(),
                        record.achieved_depth.to_string(),
                        record.score.to_string(),
                        record.interval.0.to_string(),
                        record.interval.1.to_string(),
                        record.correct.to_string(),
                        record.asked.to_string(),
                        record.trials.len().to_string(),
                        record.seconds.to_string(),
                        record.tokens_per_second.to_string(),
                        record.peak_bytes.to_string(),
                    ])?;
                }
            }
        }
    }
    write_whole(path, &csv.into_inner().context("needle.csv")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_length_ends_at_the_first_gap() {
        let mastered = |scores: &[f64]| mastered(scores.iter().map(|&x| Some(x)), 0.85);
        assert_eq!(mastered(&[1.0, 0.9, 0.85]), 3);
        assert_eq!(mastered(&[1.0, 0.8, 1.0]), 1);
        assert_eq!(mastered(&[0.84]), 0);
        // 0.6 is not quite 15/25 as a sum of fifths.
        let sum: f64 = [0.2; 3].iter().sum();
        assert!(sum != 0.6 && super::mastered([Some(sum)].into_iter(), 0.6) == 1);
        assert_eq!(
            super::mastered([Some(1.0), None, Some(1.0)].into_iter(), 0.5),
            1
        );
    }

    #[test]
    fn scores_are_percent() {
        assert_eq!(score_text(0.84, (0.653, 0.936)), "84 (65–94)");
        assert_eq!([0.5, 1.0 / 3.0].map(percent), ["50 %", "33.3 %"]);
    }
}
