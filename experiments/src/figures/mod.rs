//! Figures of a run. A figure is one file that exports `Figure` and one word in the registry below;
//! the word, the file name and the stem are the same. The tests of this module then ask for
//! `tests/golden/figures/NAME.txt`.

use anyhow::Result;
use longspan_rope::registry;

use crate::draw::{Canvas, Curve, CurveKind, LengthFigure};
use crate::folder::PerplexityRecord;
use crate::tables::perplexity::Table;
use crate::tables::{RunTables, file_name};

registry! {
    /// Every figure, in the order in which a report draws them.
    pub static FIGURES: [dyn RunFigure] = Figure;
    ppl, time, needle
}

/// A figure of a run.
pub trait RunFigure: Sync {
    /// Stem of the file names.
    fn stem(&self) -> &'static str;

    /// What it shows, in one line.
    fn summary(&self) -> &'static str;

    /// The pages of the figure, each with the suffix that its file name has after the stem; none if
    /// the run has nothing to show.
    ///
    /// # Errors
    /// A page cannot be drawn.
    fn draw(&self, tables: &RunTables) -> Result<Vec<(String, Canvas)>>;
}

/// One page for each protocol: without suffix for the first, `-PROTOCOL` for the others. `page`
/// returns `None` for a table with nothing to show.
fn by_protocol(
    tables: &RunTables,
    page: impl Fn(&Table) -> Result<Option<Canvas>>,
) -> Result<Vec<(String, Canvas)>> {
    let mut pages = Vec::new();
    for (i, table) in tables.perplexity.iter().enumerate() {
        let suffix = match i {
            0 => String::new(),
            _ => format!("-{}", table.protocol.name()),
        };
        pages.extend(page(table)?.map(|page| (suffix, page)));
    }
    Ok(pages)
}

/// A curve for each method of a table. `value` gives a record's value and the standard error of the
/// value's logarithm.
fn curves(table: &Table, value: impl Fn(&PerplexityRecord) -> Option<(f64, f64)>) -> Vec<Curve> {
    let point = |record: &PerplexityRecord| {
        let (value, error) = value(record)?;
        Some((record.provenance.length, value, error))
    };
    let curve = |&method: &&str| Curve {
        name: method.to_owned(),
        points: table.row(method).filter_map(point).collect(),
        kind: CurveKind::Method,
    };
    table.methods.iter().map(curve).collect()
}

/// The page of a table's curves, titled with model, text and protocol.
fn length_page(table: &Table, quantity: &'static str, curves: Vec<Curve>) -> Result<Canvas> {
    let newest = table.newest;
    let (model, data) = (file_name(&newest.model), file_name(&newest.data));
    let figure = LengthFigure {
        title: format!("{model} on {data}"),
        subtitle: format!(
            "protocol {}, {} weights",
            table.protocol.name(),
            newest.dtype
        ),
        quantity,
        trained: newest.trained_length,
        curves,
    };
    figure.paint()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::tables::example::Example;

    #[test]
    fn a_stem_is_the_name_of_its_file() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/figures");
        let names: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "mod.rs")
            .collect();
        let stems = FIGURES.iter().map(|figure| format!("{}.rs", figure.stem()));
        assert_eq!(stems.collect::<BTreeSet<_>>(), names);
        assert_eq!(FIGURES.len(), names.len());
        assert!(FIGURES.iter().all(|figure| !figure.summary().is_empty()));
    }

    /// The file names, without extension, of the pages that a figure of the example run must have.
    fn golden_pages(figure: &dyn RunFigure) -> Vec<String> {
        let stem = figure.stem();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/golden/figures")
            .join(format!("{stem}.txt"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("`{stem}` needs its pages in {}: {e}", path.display()));
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_figure_has_its_golden_pages() {
        let example = Example::new();
        let (perplexities, floors) = (&example.perplexities, &example.floors);
        let tables = RunTables::new(&example.config, perplexities, floors, &example.tasks).unwrap();
        for &figure in FIGURES {
            let mut files = Vec::new();
            for (suffix, page) in figure.draw(&tables).unwrap() {
                assert!(page.beyond().is_empty(), "{:?}", page.beyond());
                files.push(format!("{}{suffix}", figure.stem()));
            }
            assert!(!files.is_empty(), "{}", figure.stem());
            assert_eq!(files, golden_pages(figure));
        }
    }

    #[test]
    fn a_run_without_records_has_no_figures() {
        let example = Example::new();
        let tables = RunTables::new(&example.config, &[], &example.floors, &[]).unwrap();
        for figure in FIGURES {
            assert!(
                figure.draw(&tables).unwrap().is_empty(),
                "{}",
                figure.stem()
            );
        }
    }
}
