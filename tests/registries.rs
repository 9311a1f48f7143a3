//! What every perplexity protocol and figure of the registries must satisfy. A new protocol fails
//! here until `tests/golden/protocols/NAME.json` has its windows, made by other means than its
//! code. Frequency methods, patterns, scales, tasks and families have such tests in their crates.

use std::collections::BTreeSet;

use longspan::figures::FIGURES;
use longspan::protocols::{
    Average, Budget, PROTOCOLS, PerplexityProtocol, ProtocolName, TokenStream, Window,
};
use longspan_rope::{Axis, Options};
use serde::Deserialize;
use serde_json::json;

mod shared;

/// The file of a protocol.
#[derive(Deserialize)]
struct Goldens {
    by_document: bool,
    average: Average,
    cases: Vec<Case>,
}

/// The windows of length `n` in documents of 7, 30 and 20 tokens.
#[derive(Deserialize)]
struct Case {
    options: Options,
    /// Lengths of the run.
    lengths: Vec<usize>,
    max_tokens: usize,
    n: usize,
    /// Start, first and past-the-last scored position, and group of each.
    windows: Vec<(usize, (usize, usize), usize)>,
}

fn stream() -> TokenStream {
    TokenStream {
        ids: (0..57).collect(),
        document_start: vec![0, 7, 37],
        document_number: vec![0, 1, 2],
    }
}

fn goldens(protocol: &dyn PerplexityProtocol) -> Goldens {
    let name = protocol.name();
    let path = shared::golden("").join(format!("protocols/{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("`{name}` needs golden windows in {}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn protocols_have_their_golden_windows() {
    for &protocol in PROTOCOLS {
        let Goldens {
            by_document,
            average,
            cases,
        } = goldens(protocol);
        assert!(!cases.is_empty(), "{}", protocol.name());
        assert_eq!(protocol.by_document(), by_document);
        assert_eq!(protocol.average(), average);
        for case in cases {
            let budget = Budget {
                shortest: case.lengths[0],
                longest: case.lengths[case.lengths.len() - 1],
                max_tokens: case.max_tokens,
            };
            let options = protocol.complete(&budget, &case.options).unwrap();
            // Complete options stay as they are.
            assert_eq!(protocol.complete(&budget, &options).unwrap(), options);
            let found = protocol.windows(&stream(), &budget, &options, case.n);
            let expected: Vec<Window> = (case.windows.into_iter())
                .map(|(start, (first, end), group)| Window {
                    start,
                    scored: first..end,
                    group,
                })
                .collect();
            let what = format!("{} {:?} at {}", protocol.name(), case.options, case.n);
            assert_eq!(found.unwrap(), expected, "{what}");
            let words = protocol.describe(&budget, &options).unwrap();
            assert!(!words.text.is_empty() && !words.fed.is_empty() && !words.scored.is_empty());
        }
    }
}

#[test]
fn protocols_are_described_and_refuse_unknown_options() {
    let names: BTreeSet<&str> = PROTOCOLS.iter().map(|protocol| protocol.name()).collect();
    assert_eq!(names.len(), PROTOCOLS.len());
    assert!(names.contains(<dyn PerplexityProtocol>::DEFAULT));
    let budget = Budget {
        shortest: 8,
        longest: 16,
        max_tokens: 100,
    };
    for protocol in PROTOCOLS {
        assert_eq!(
            ProtocolName::new(protocol.name()).unwrap().name(),
            protocol.name()
        );
        assert!(!protocol.summary().is_empty() && !protocol.source().is_empty());
        let wrong: Options = [("no_such_option".to_owned(), json!(1))]
            .into_iter()
            .collect();
        let error = protocol.complete(&budget, &wrong).unwrap_err().to_string();
        assert!(error.contains("no_such_option"), "{error}");
        for option in protocol.options() {
            assert!(error.contains(option.name), "{error}");
        }
    }
    let error = ProtocolName::new("paked").unwrap_err().to_string();
    assert!(
        error.contains("`paked`") && error.contains("last_k"),
        "{error}"
    );
}

#[test]
fn figures_are_described() {
    let stems: BTreeSet<&str> = FIGURES.iter().map(|figure| figure.stem()).collect();
    assert_eq!(stems.len(), FIGURES.len());
    assert!(FIGURES.iter().all(|figure| !figure.summary().is_empty()));
}
