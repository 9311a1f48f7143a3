//! Plans of whole methods: runs of layers, prefixes, errors, variants outside the registry.

use longspan_attention::{AttentionPattern, BandKeys, Layer, Method, Model, PlanError, Plans};
use longspan_rope::{Length, OptionError, Options, Rope, Variant};
use serde_json::{Value, json};

fn model(trained: usize, layers: usize) -> Model {
    let rope = Rope {
        dim: 8,
        base: 1e4,
        trained,
    };
    Model { rope, layers }
}

fn method(mut table: Value) -> Method {
    table["name"] = json!("m");
    serde_json::from_value(table).unwrap()
}

fn plans(table: Value, trained: usize, n: usize) -> Plans {
    let plans = method(table).plan(&model(trained, 2), Length::whole(n));
    plans.unwrap()
}

#[test]
fn logn_by_visible_keys_follows_the_window() {
    let table = json!({"window": [3, "full"], "sinks": 2, "logn": {"length": "visible"}});
    let plans = plans(table, 4, 7);
    let [near, sinks] = plans[0].bands.as_slice() else {
        panic!("two bands")
    };
    assert_eq!(near.keys, [0..1, 0..2, 0..3, 1..4, 2..5, 3..6, 4..7]);
    assert_eq!(sinks.keys, [0..0, 0..0, 0..0, 0..1, 0..2, 0..2, 0..2]);
    // Five keys are seen from the fifth query on, one more than the trained length.
    let five = 5f64.ln() / 4f64.ln();
    assert_eq!(plans[0].query_scale, [1.0, 1.0, 1.0, 1.0, five, five, five]);
    assert_eq!(plans[1].bands.len(), 1);
    assert_eq!(plans[1].bands[0].keys[6], 0..7);
}

#[test]
fn only_plans_that_agree_are_prefixes() {
    let prefix = |table: Value, short, long| {
        plans(table.clone(), 8, short).is_prefix_of(&plans(table, 8, long))
    };
    let fixed = json!({"window": 5, "sinks": 1, "logn": true});
    assert!(prefix(fixed.clone(), 6, 30) && !prefix(fixed, 30, 6));
    let dynamic = json!({"rope": {"kind": "dynamic_ntk"}});
    assert!(prefix(dynamic.clone(), 4, 8) && prefix(dynamic.clone(), 9, 16));
    assert!(!prefix(dynamic, 8, 9));
    // With alpha from the window, the plan does not depend on the length once the window is full.
    let layered = json!({"rope": {"kind": "dynamic_ntk"},
        "window": {"layers": 12, "alpha": "per_layer"}});
    assert!(prefix(layered.clone(), 12, 30) && !prefix(layered, 8, 30));
}

#[test]
fn runs_of_layers_repeat_and_equal_plans_are_one() {
    let method = method(json!({
        "rope": {"layers": [[1, {"kind": "none"}], [1, {"kind": "linear", "factor": 2.0}]]},
        "attention": {"layers": [[3, {"kind": "window", "size": 4}], [1, {"kind": "full"}]]},
    }));
    let plans = method.plan(&model(8, 8), Length::whole(9)).unwrap();
    // Layers 0 and 2 agree; 1; 3; and the same again.
    assert_eq!(plans.of_layer(), [0, 1, 0, 2, 0, 1, 0, 2]);
    assert_eq!(plans[3].bands[0].keys[8], 0..9);
    assert_eq!(plans[1].bands[0].keys[8], 5..9);
    assert_eq!(plans[1].bands[0].spectrum.inv_freq[0], 0.5);
    let kept = method.kept(&model(8, 8)).unwrap();
    assert_eq!((kept[2].last, kept[3].last), (Some(4), None));
    let error = method.plan(&model(8, 6), Length::whole(9)).unwrap_err();
    assert!(matches!(
        error,
        PlanError::Attention(OptionError::Runs {
            given: 4,
            layers: 6
        })
    ));
}

#[test]
fn errors_name_the_key_the_variant_and_both_values() {
    for (table, words) in [
        (
            json!({"rope": {"kind": "yarm"}}),
            "rope: `yarm` is not known",
        ),
        (
            json!({"rope": {"kind": "linear", "factor": 0.5}}),
            "rope: `linear`: `factor` is 0.5",
        ),
        (
            json!({"attention": {"kind": "windw"}}),
            "attention: `windw` is not known",
        ),
        (json!({"attention": {"kind": "window"}}), "size"),
        (
            json!({"attention": {"kind": "window", "size": 0}}),
            "0 is not a size",
        ),
        (
            json!({"window": [8, 8, 8]}),
            "cover 3 layers, the model has 2",
        ),
        (json!({"sinks": 4}), "sinks = 4, but no layer has a window"),
        (
            json!({"window": {"layers": "full", "alpha": "per_layer"}}),
            "no layer has a window; give windows",
        ),
        (
            json!({"scale": {"kind": "logn", "length": "seen"}}),
            "scale: `logn`: ",
        ),
    ] {
        let error = method(table)
            .plan(&model(8, 2), Length::whole(9))
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A pattern outside the registry: every query sees itself and the key before it.
struct Pairs;

impl Variant for Pairs {
    fn name(&self) -> &'static str {
        "pairs"
    }

    fn settings(&self) -> Options {
        [("back".to_owned(), json!(1))].into_iter().collect()
    }
}

impl AttentionPattern for Pairs {
    fn bands(&self, layer: &Layer, options: &Options) -> Result<Vec<BandKeys>, OptionError> {
        assert_eq!(options["back"], json!(1));
        Ok(vec![BandKeys::in_place(layer, |i| {
            i.saturating_sub(1)..i + 1
        })])
    }
}

#[test]
fn a_pattern_outside_the_registry_has_its_own_settings() {
    let method = Method::named("mine").with_attention(Pairs);
    let plans = method.plan(&model(8, 2), Length::whole(3)).unwrap();
    assert_eq!(plans[1].bands[0].keys, [0..1, 0..2, 1..3]);
    assert_eq!(
        method.settings(),
        json!({"rope": {"kind": "none"}, "logn": false, "attention": {"kind": "pairs", "back": 1}})
    );
}
