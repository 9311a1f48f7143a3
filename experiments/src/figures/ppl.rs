//! Perplexity by context length, with published numbers and the floor.

use anyhow::Result;

use super::{RunFigure, by_protocol, curves, length_page};
use crate::draw::{Canvas, Curve, CurveKind};
use crate::tables::RunTables;
use crate::tables::perplexity::Table;

/// The figure; see the module.
pub struct Figure;

impl RunFigure for Figure {
    fn stem(&self) -> &'static str {
        "ppl"
    }

    fn summary(&self) -> &'static str {
        "perplexity by context length, a page for each protocol"
    }

    fn draw(&self, tables: &RunTables) -> Result<Vec<(String, Canvas)>> {
        by_protocol(tables, page)
    }
}

fn page(table: &Table) -> Result<Option<Canvas>> {
    let mut curves = curves(table, |record| {
        Some((record.perplexity?, record.nll_se.unwrap_or(0.0)))
    });
    curves.extend(published(table));
    curves.extend(floor(table));
    if curves.iter().all(|curve| curve.points.is_empty()) {
        log::warn!(
            "no finite perplexity under {}: no figure",
            table.protocol.name()
        );
        return Ok(None);
    }
    length_page(table, "perplexity", curves).map(Some)
}

fn published(table: &Table) -> impl Iterator<Item = Curve> {
    table.published.iter().map(|published| {
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
    })
}

fn floor(table: &Table) -> Option<Curve> {
    let points = table.floor_row();
    (!table.floors.is_empty()).then(|| Curve {
        name: "floor".to_owned(),
        points: points
            .map(|floor| (floor.length, floor.perplexity(), 0.0))
            .collect(),
        kind: CurveKind::Floor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example::Example;

    #[test]
    fn published_numbers_and_floors_are_in_the_legend_of_their_protocol() {
        let example = Example::new();
        let (perplexities, floors) = (&example.perplexities, &example.floors);
        let tables = RunTables::new(&example.config, perplexities, floors, &[]).unwrap();
        let pages = Figure.draw(&tables).unwrap();
        for (page, there) in pages.iter().zip([true, false]) {
            let texts = page.1.texts();
            assert!(
                texts.contains(&"plain") && texts.contains(&"a|b"),
                "{texts:?}"
            );
            for name in ["published: theirs", "floor"] {
                assert_eq!(texts.contains(&name), there, "{name}: {texts:?}");
            }
        }
    }

    #[test]
    fn a_protocol_without_a_finite_perplexity_has_no_page() {
        let mut example = Example::new();
        for record in &mut example.perplexities {
            if record.protocol.name() == "half" {
                record.perplexity = None;
            }
        }
        let tables = RunTables::new(&example.config, &example.perplexities, &[], &[]).unwrap();
        let suffixes: Vec<String> = (Figure.draw(&tables).unwrap().into_iter())
            .map(|page| page.0)
            .collect();
        assert_eq!(suffixes, [""]);
    }
}
