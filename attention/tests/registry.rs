//! What every attention pattern and query scale of the registries must satisfy. A new variant fails
//! here until `tests/goldens` has a file of its name, with values made by other means than its
//! code.

use std::collections::BTreeSet;
use std::path::Path;

use longspan_attention::{
    AttentionPattern, Kept, Layer, LayerPlan, Method, Model, PATTERNS, QueryScale, SCALES, oracle,
};
use longspan_rope::{Axis, Length, OptionError, Options, Rope, find};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a query of a golden case sees: for each key the distance `q position - k position`; null
/// where the key is not seen. Keys after the query are left out.
#[derive(Deserialize)]
struct Row {
    query: usize,
    distances: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct KeptGolden {
    last: Option<usize>,
    first: usize,
}

#[derive(Deserialize)]
struct PatternGolden {
    options: Options,
    trained: usize,
    layers: usize,
    layer: usize,
    n: usize,
    rope_length: usize,
    kept: KeptGolden,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct ScaleGolden {
    options: Options,
    trained: usize,
    n: usize,
    /// Keys that each query sees; default: all up to itself.
    seen: Option<Vec<usize>>,
    /// Query and factor, to the digits published.
    factors: Vec<(usize, f64)>,
}

/// The golden cases of a variant.
fn goldens<T: DeserializeOwned>(axis: &str, name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(axis)
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("`{name}` needs golden cases in {}: {e}", path.display()));
    let cases: Vec<T> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(!cases.is_empty(), "{name}");
    cases
}

fn model(trained: usize, layers: usize) -> Model {
    let rope = Rope {
        dim: 8,
        base: 1e4,
        trained,
    };
    Model { rope, layers }
}

/// A method of one pattern.
fn method(kind: &str, options: &Options) -> Method {
    let mut attention = options.clone();
    attention.insert("kind".to_owned(), json!(kind));
    serde_json::from_value(json!({"name": kind, "attention": attention})).unwrap()
}

#[test]
fn patterns_have_their_golden_distances() {
    for pattern in PATTERNS {
        for case in goldens::<PatternGolden>("patterns", pattern.name()) {
            let what = format!("{} {:?}", pattern.name(), case.options);
            let model = model(case.trained, case.layers);
            let layer = Layer {
                model: &model,
                index: case.layer,
                length: Length::whole(case.n),
                queries: 0..case.n,
            };
            let bands = pattern.bands(&layer, &case.options).unwrap();
            for Row { query, distances } in &case.rows {
                let mut found = vec![None; query + 1];
                for band in &bands {
                    for key in band.keys[*query].clone().map(|key| key as usize) {
                        let distance = band.q_position[*query] - band.k_position[key];
                        assert!(found[key].replace(distance).is_none(), "{what}: two bands");
                    }
                }
                assert_eq!(found, *distances, "{what}, query {query}");
            }
            let rope_length = pattern.rope_length(&layer, &case.options).unwrap();
            assert_eq!(rope_length, Length::whole(case.rope_length), "{what}");
            let kept = pattern.kept(&model, case.layer, &case.options).unwrap();
            let KeptGolden { last, first } = case.kept;
            assert_eq!(kept, Kept { last, first }, "{what}");
        }
    }
}

#[test]
fn scales_have_their_golden_factors() {
    for scale in SCALES {
        for case in goldens::<ScaleGolden>("scales", scale.name()) {
            let model = model(case.trained, 1);
            let layer = Layer {
                model: &model,
                index: 0,
                length: Length::whole(case.n),
                queries: 0..case.n,
            };
            let seen = case.seen.unwrap_or_else(|| (1..=case.n).collect());
            let factors = scale.factors(&layer, &seen, &case.options).unwrap();
            assert_eq!(factors.len(), case.n);
            for (query, factor) in case.factors {
                let found = factors[query];
                assert!(
                    (found - factor).abs() < 5e-6,
                    "{} at {query}: {found}, not {factor}",
                    scale.name()
                );
            }
        }
    }
}

/// Kernels rely on it: ranges of a band never go back, bands are disjoint, nobody sees the future.
#[test]
fn bands_are_disjoint_ordered_and_causal() {
    for pattern in PATTERNS {
        for case in goldens::<PatternGolden>("patterns", pattern.name()) {
            let model = model(case.trained, case.layers);
            for n in [1, 2, 17, 129] {
                let plans = method(pattern.name(), &case.options)
                    .plan(&model, Length::whole(n))
                    .unwrap();
                for plan in plans.iter() {
                    assert_well_formed(plan, n);
                }
            }
        }
    }
}

fn assert_well_formed(plan: &LayerPlan, n: usize) {
    for band in &plan.bands {
        assert_eq!(
            (
                band.keys.len(),
                band.q_position.len(),
                band.k_position.len()
            ),
            (n, n, n)
        );
        for pair in band.keys.windows(2) {
            assert!(pair[0].start <= pair[1].start && pair[0].end <= pair[1].end);
        }
    }
    for i in 0..n {
        let mut seen = vec![false; n];
        for key in plan.bands.iter().flat_map(|band| band.keys[i].clone()) {
            assert!(key as usize <= i, "query {i} sees key {key}");
            assert!(!std::mem::replace(&mut seen[key as usize], true));
        }
        assert!(seen[i], "query {i} does not see itself");
    }
}

/// Decoding plans new queries alone; each row must be that of the whole plan, and a cache that
/// keeps what the pattern says must hold every key that they see.
#[test]
fn queries_can_be_planned_apart() {
    for pattern in PATTERNS {
        for case in goldens::<PatternGolden>("patterns", pattern.name()) {
            let (n, model) = (20, model(case.trained, case.layers));
            let mut method = method(pattern.name(), &case.options);
            let scale = json!({"kind": "logn", "length": "visible"});
            method.scale = serde_json::from_value(scale).unwrap();
            let length = Length::whole(n);
            let whole = method.plan(&model, length).unwrap();
            let kept = method.kept(&model).unwrap();
            for queries in [0..1, 3..9, n - 1..n] {
                let part = method
                    .plan_queries(&model, length, queries.clone())
                    .unwrap();
                for (layer, (whole, part)) in whole.iter().zip(part.iter()).enumerate() {
                    assert_eq!(part.query_scale, whole.query_scale[queries.clone()]);
                    for (whole, part) in whole.bands.iter().zip(&part.bands) {
                        assert_eq!(part.keys, whole.keys[queries.clone()]);
                        assert_eq!(part.q_position, whole.q_position[queries.clone()]);
                        assert_eq!(part.k_position, whole.k_position);
                        assert_eq!(part.spectrum, whole.spectrum);
                    }
                    let Kept { last, first } = kept[layer];
                    for (row, query) in queries.clone().enumerate() {
                        let oldest = last.map_or(0, |last| (query + 1).saturating_sub(last));
                        let keys = part.bands.iter().flat_map(|band| band.keys[row].clone());
                        for key in keys.map(|key| key as usize) {
                            assert!(key < first || key >= oldest, "key {key} was dropped");
                        }
                    }
                }
            }
        }
    }
}

/// One softmax over the seen keys, written down here without bands.
#[test]
fn the_oracle_executes_every_pattern() {
    let (n, d) = (17, 8);
    let wave = |seed: f64| -> Vec<Vec<f64>> {
        let row = |i: usize| (0..d).map(move |c| (seed * (3 * i + 5 * c + 1) as f64).sin());
        (0..n).map(|i| row(i).collect()).collect()
    };
    let (q, k, v) = (wave(0.7), wave(1.3), wave(2.1));
    for pattern in PATTERNS {
        for case in goldens::<PatternGolden>("patterns", pattern.name()) {
            let model = model(case.trained, case.layers);
            let plans = method(pattern.name(), &case.options)
                .plan(&model, Length::whole(n))
                .unwrap();
            let plan = &plans[case.layer];
            let (output, _) = oracle::attention(plan, &q, &k, &v);
            for i in 0..n {
                let mut weights = vec![0.0; n];
                for band in &plan.bands {
                    for j in band.keys[i].clone().map(|j| j as usize) {
                        let distance = band.q_position[i] - band.k_position[j];
                        let turned = oracle::rotate(&q[i], distance, &band.spectrum.inv_freq, 1.0);
                        let dot: f64 = turned.iter().zip(&k[j]).map(|(a, b)| a * b).sum();
                        weights[j] = (dot * plan.query_scale[i] / (d as f64).sqrt()).exp();
                    }
                }
                let sum: f64 = weights.iter().sum();
                for c in 0..d {
                    let expected: f64 = (0..n).map(|j| weights[j] / sum * v[j][c]).sum();
                    assert!(
                        (output[i][c] - expected).abs() < 1e-12,
                        "{}",
                        pattern.name()
                    );
                }
            }
        }
    }
}

fn assert_described<A: Axis + ?Sized>(refuses: impl Fn(&A, &Options) -> Option<OptionError>) {
    let names: BTreeSet<&str> = A::registry().iter().map(|variant| variant.name()).collect();
    assert_eq!(names.len(), A::registry().len());
    assert!(names.contains(A::DEFAULT));
    for &variant in A::registry() {
        assert!(std::ptr::addr_eq(
            find::<A>(variant.name()).unwrap(),
            variant
        ));
        assert!(!variant.summary().is_empty() && !variant.summary().contains('\n'));
        assert!(!variant.source().is_empty());
        for option in variant.options() {
            assert!(!option.meaning.is_empty(), "{}", option.name);
        }
        // Unknown options are refused, with the names of those that it takes.
        let wrong: Options = [("no_such_option".to_owned(), Value::Null)]
            .into_iter()
            .collect();
        assert!(refuses(variant, &wrong).is_some(), "{}", variant.name());
        let wrong: Options = [("no_such_option".to_owned(), json!(1))]
            .into_iter()
            .collect();
        let error = refuses(variant, &wrong)
            .expect("an unknown option")
            .to_string();
        assert!(error.contains("no_such_option"), "{error}");
        for option in variant.options() {
            assert!(error.contains(option.name), "{error}");
        }
    }
}

#[test]
fn every_variant_is_described_and_refuses_unknown_options() {
    let model = model(8, 2);
    let layer = Layer {
        model: &model,
        index: 0,
        length: Length::whole(9),
        queries: 0..9,
    };
    assert_described::<dyn AttentionPattern>(|pattern, options| {
        pattern.bands(&layer, options).err()
    });
    assert_described::<dyn QueryScale>(|scale, options| {
        scale.factors(&layer, &[1; 9], options).err()
    });
}
