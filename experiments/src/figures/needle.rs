//! Scores of tasks by context length and depth, as heat maps.

use anyhow::Result;

use super::RunFigure;
use crate::draw::{Canvas, HeatFigure, HeatPanel};
use crate::tables::tasks::Table;
use crate::tables::{RunTables, file_name};

/// The figure; see the module.
pub struct Figure;

impl RunFigure for Figure {
    fn stem(&self) -> &'static str {
        "needle"
    }

    fn summary(&self) -> &'static str {
        "scores by context length and depth as heat maps, a page for each task and scorer"
    }

    /// Suffixes are `-TASK` if the config has several tasks, then `-SCORER` for all scorers but the
    /// first.
    fn draw(&self, tables: &RunTables) -> Result<Vec<(String, Canvas)>> {
        let Some(needle) = &tables.config.needle else {
            return Ok(Vec::new());
        };
        let several_tasks = needle.task_names()?.len() > 1;
        let first_scorer = needle.scorers()[0];
        let mut pages = Vec::new();
        for table in &tables.tasks {
            let mut suffix = String::new();
            if several_tasks {
                suffix += &format!("-{}", table.task);
            }
            if table.scorer != first_scorer {
                suffix += &format!("-{}", table.scorer.name());
            }
            pages.push((suffix, figure(table).paint()?));
        }
        Ok(pages)
    }
}

fn figure(table: &Table) -> HeatFigure {
    let newest = &table.newest.provenance;
    let panel = |&method: &&str| {
        let column = |&length: &usize| -> Vec<Option<f64>> {
            let score = |&depth: &f64| Some(table.record(method, length, depth)?.score);
            table.depths.iter().map(score).collect()
        };
        HeatPanel {
            name: method.to_owned(),
            scores: table.lengths.iter().map(column).collect(),
        }
    };
    let (model, data) = (file_name(&newest.model), file_name(&newest.data));
    HeatFigure {
        title: format!("{model}: {} in {data}", table.task),
        subtitle: format!(
            "{}, {} trials per cell, {} weights",
            table.scorer.name(),
            table.newest.trials.len(),
            newest.dtype
        ),
        trained: newest.trained_length,
        threshold: table.threshold,
        depth_title: "needle depth (%)".to_owned(),
        lengths: table.lengths.to_vec(),
        depths: table.depths.clone(),
        panels: table.methods.iter().map(panel).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example::Example;

    #[test]
    fn a_cell_without_a_record_stays_empty() {
        let mut example = Example::new();
        example.tasks.retain(|record| {
            let provenance = &record.provenance;
            provenance.method == "plain" || provenance.length == 1024 || record.depth == 0.0
        });
        let tables = RunTables::new(&example.config, &[], &[], &example.tasks).unwrap();
        let figure = figure(&tables.tasks[0]);
        assert_eq!(figure.title, "Example-7B: pass-key in arxiv.jsonl");
        assert_eq!(
            figure.subtitle,
            "teacher-forced, 5 trials per cell, bf16 weights"
        );
        let full = vec![vec![Some(1.0), Some(1.0)], vec![Some(0.0), Some(0.0)]];
        assert_eq!(figure.panels[0].scores, full);
        assert_eq!(figure.panels[1].scores[1], [Some(0.0), None]);
    }
}
