//! Milliseconds per token by context length.

use anyhow::Result;

use super::{RunFigure, by_protocol, curves, length_page};
use crate::draw::Canvas;
use crate::tables::RunTables;
use crate::tables::perplexity::Table;

/// The figure; see the module.
pub struct Figure;

impl RunFigure for Figure {
    fn stem(&self) -> &'static str {
        "time"
    }

    fn summary(&self) -> &'static str {
        "milliseconds per token by context length, for lengths with a pass of their own"
    }

    fn draw(&self, tables: &RunTables) -> Result<Vec<(String, Canvas)>> {
        by_protocol(tables, page)
    }
}

/// `None` if no method has passes of two lengths. A length that a longer pass served has no time of
/// its own.
fn page(table: &Table) -> Result<Option<Canvas>> {
    let curves = curves(table, |record| {
        let provenance = &record.provenance;
        let own = record.pass_length == provenance.length;
        own.then(|| (1e3 / provenance.tokens_per_second, 0.0))
    });
    if curves.iter().all(|curve| curve.points.len() < 2) {
        return Ok(None);
    }
    length_page(table, "milliseconds per token", curves).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example::Example;

    #[test]
    fn lengths_that_share_a_pass_have_no_times() {
        let mut example = Example::new();
        for record in &mut example.perplexities {
            record.pass_length = 2048;
        }
        let tables = RunTables::new(&example.config, &example.perplexities, &[], &[]).unwrap();
        assert!(Figure.draw(&tables).unwrap().is_empty());
    }
}
