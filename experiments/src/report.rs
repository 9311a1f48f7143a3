//! The report of a run: tables and figures from its records.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{self, RunConfig};
use crate::figures::FIGURES;
use crate::folder::{PerplexityRecord, Provenance, TaskRecord, percent, write_whole};
use crate::measure::Measure;
use crate::measure::perplexity::{Perplexity, floor};
use crate::measure::tasks::Tasks;
use crate::memory;
use crate::protocols::SeOver;
use crate::tables::{RunTables, head, perplexity, tasks};

/// Writes the tables and figures of a run into its folder: `table.md` and `table.csv` of the
/// perplexities, `needle.md` and `needle.csv` of the tasks, and SVG and PNG of every figure.
/// Returns the tables as text.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(
    dir: &Path,
    config: &RunConfig,
    perplexities: &[PerplexityRecord],
    tasks: &[TaskRecord],
) -> Result<String> {
    let refused = memory::read(dir)?;
    let floors = floor::read(dir)?;
    let tables = RunTables::new(config, perplexities, &floors, tasks)?;
    let mut texts = Vec::new();
    if let Some(newest) = perplexities.last() {
        let mut text = perplexity_text(&tables, &newest.provenance, !floors.is_empty());
        text.push_str(&memory::note(&refused, Perplexity::NAME));
        write_whole(&dir.join("table.md"), text.as_bytes())?;
        write_whole(
            &dir.join("table.csv"),
            &perplexity::csv(&tables.perplexity)?,
        )?;
        texts.push(text);
    }
    if let (Some(_), Some(newest)) = (&config.needle, tasks.last()) {
        let mut text = tasks_text(&tables, &newest.provenance);
        text.push_str(&memory::note(&refused, Tasks::NAME));
        write_whole(&dir.join("needle.md"), text.as_bytes())?;
        write_whole(&dir.join("needle.csv"), &tasks::csv(&tables.tasks)?)?;
        texts.push(text);
    }
    for figure in FIGURES {
        let drawing = || format!("drawing the figure {}", figure.stem());
        for (suffix, page) in figure.draw(&tables).with_context(drawing)? {
            page.save(dir, &format!("{}{suffix}", figure.stem()))
                .with_context(drawing)?;
        }
    }
    Ok(texts.join("\n"))
}

/// The text of `table.md`, without refusals.
fn perplexity_text(tables: &RunTables, newest: &Provenance, floor_known: bool) -> String {
    let mut text = head("Perplexity by context length", newest);
    if floor_known {
        let row = floor::ROW;
        text.push_str(&format!(
            "- {row}: the perplexity of a reader of the same windows who knows by which rules the text \
             was made; no model can be expected to go below it\n"
        ));
    }
    for table in &tables.perplexity {
        let unit = if table.protocol.by_document() {
            "document"
        } else {
            "window"
        };
        let over_tokens = |record: &&PerplexityRecord| record.se_over == SeOver::Tokens;
        let starred = if table.records.iter().any(over_tokens) {
            format!(" (*: over tokens, since there is one {unit}: too small)")
        } else {
            String::new()
        };
        write!(
            text,
            "\n## {}\n\n{}; ± is one standard error over {unit}s{starred}\n\n{}{}",
            table.protocol.name(),
            table.detail,
            table.markdown(),
            config::note(table.published),
        )
        .expect("writing to a string");
    }
    text
}

/// The text of `needle.md`, without refusals.
fn tasks_text(tables: &RunTables, newest: &Provenance) -> String {
    let mut text = head("Needle in a haystack", newest);
    for table in &tables.tasks {
        let depths = table.depths.len();
        write!(
            text,
            "\n## {}, {}\n\n{}; mean score (%) over {depths} depths of {} trials each, with Wilson's 95 % \
             interval for {} trials; effective: the longest length at which it and all shorter ones \
             reach {}\n\n{}",
            table.task,
            table.scorer.name(),
            table.scorer.describe(),
            table.keys,
            table.keys * depths,
            percent(table.threshold),
            table.markdown(),
        )
        .expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example::Example;

    fn write_example(dir: &Path, example: &Example) -> String {
        floor::write(dir, &example.floors).unwrap();
        write(dir, &example.config, &example.perplexities, &example.tasks).unwrap()
    }

    #[test]
    fn a_report_writes_its_files_and_returns_its_tables() {
        let dir = tempfile::tempdir().unwrap();
        let example = Example::new();
        let text = write_example(dir.path(), &example);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text, [read("table.md"), read("needle.md")].join("\n"));
        assert_eq!(read("table.csv").lines().count(), 1 + 8 + 2 + 2);
        assert_eq!(read("needle.csv").lines().count(), 1 + 32);
        for stem in ["ppl", "ppl-half", "time-half", "needle-fact-generate"] {
            assert!(read(&format!("{stem}.svg")).starts_with("<svg"), "{stem}");
            let png = std::fs::read(dir.path().join(format!("{stem}.png"))).unwrap();
            assert!(png.starts_with(b"\x89PNG"), "{stem}");
        }
    }

    #[test]
    fn table_md_has_its_form() {
        let example = Example::new();
        let (config, perplexities) = (&example.config, &example.perplexities);
        let mut tables = RunTables::new(config, perplexities, &example.floors, &[]).unwrap();
        tables.perplexity.truncate(1);
        let text = perplexity_text(&tables, &perplexities[0].provenance, true);
        let expected = "\
# Perplexity by context length

- model: checkpoints/Example-7B (bf16, trained at 1024 tokens, checkpoint 0123456789ab)
- data: texts/arxiv.jsonl
- floor (exact): the perplexity of a reader of the same windows who knows by which rules the text was made; \
no model can be expected to go below it

## packed

details of packed; ± is one standard error over windows

| method            |           1K |         2K |      4K |
| ----------------- | -----------: | ---------: | ------: |
| plain             | 4.500 ±0.045 | 123.4 ±1.2 |       - |
| a\\|b              | 4.500 ±0.045 | not finite |       - |
| published: theirs |         4.23 |          - | 2645.09 |
| floor (exact)     |        2.718 |      2.718 |       - |

published: not measured here, but taken from their README
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_error_over_tokens_is_starred() {
        let mut example = Example::new();
        example.perplexities.truncate(1);
        example.perplexities[0].se_over = SeOver::Tokens;
        let dir = tempfile::tempdir().unwrap();
        let text = write_example(dir.path(), &example);
        let said = "± is one standard error over windows (*: over tokens, since there is one window: too small)";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("| 4.500 ±0.045* |"), "{text}");
    }

    #[test]
    fn needle_md_has_its_form() {
        let example = Example::new();
        let mut tables = RunTables::new(&example.config, &[], &[], &example.tasks).unwrap();
        tables.tasks.truncate(1);
        let text = tasks_text(&tables, &example.tasks[0].provenance);
        let expected = "\
# Needle in a haystack

- model: checkpoints/Example-7B (bf16, trained at 1024 tokens, checkpoint 0123456789ab)
- data: texts/arxiv.jsonl

## pass-key, teacher-forced

the answer is fed, and every token of a value must be the most likely one at its place; mean score (%) over 2 \
depths of 5 trials each, with Wilson's 95 % interval for 10 trials; effective: the longest length at which it \
and all shorter ones reach 85 %

| method |           1K |       2K | effective |
| ------ | -----------: | -------: | --------: |
| plain  | 100 (72–100) | 0 (0–28) |        1K |
| a\\|b   | 100 (72–100) | 0 (0–28) |        1K |
";
        assert_eq!(text, expected);
    }
}
