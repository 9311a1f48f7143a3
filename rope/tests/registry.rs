//! What every method of the registry must satisfy. A new method fails here until
//! `tests/goldens/NAME.json` has golden values and cases in which the method equals plain RoPE.
//!
//! Golden values are computed from the published formulas outside this crate, in 40-digit
//! arithmetic.

use std::collections::BTreeSet;
use std::path::Path;

use longspan_rope::{
    Choice, FrequencyMethod, Length, METHODS, OptionError, Options, Rope, Spectrum, find,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The file of a method.
#[derive(Deserialize)]
struct Goldens {
    /// Where the method equals plain RoPE, for a model of 128 dimensions, base 10,000, trained at
    /// 2,048 tokens.
    neutral: Vec<Neutral>,
    cases: Vec<Golden>,
}

#[derive(Deserialize)]
struct Neutral {
    options: Options,
    total: usize,
    prefill: usize,
}

/// A spectrum at some indices.
#[derive(Deserialize)]
struct Golden {
    options: Options,
    dim: usize,
    base: f64,
    trained: usize,
    total: usize,
    prefill: usize,
    mscale: f64,
    /// Index and frequency in radians per position.
    inv_freq: Vec<(usize, f64)>,
}

fn goldens(method: &dyn FrequencyMethod) -> Goldens {
    let name = method.name();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("`{name}` needs golden values in {}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn goldens_of(method: &dyn FrequencyMethod) -> Vec<Golden> {
    let cases = goldens(method).cases;
    assert!(cases.len() >= 2, "`{}` needs two cases", method.name());
    cases
}

/// The model of a golden case.
fn model(golden: &Golden) -> Rope {
    Rope {
        dim: golden.dim,
        base: golden.base,
        trained: golden.trained,
    }
}

/// Working options and the model of a golden case.
fn example(method: &dyn FrequencyMethod) -> (Options, Rope) {
    let golden = goldens_of(method).swap_remove(0);
    let rope = model(&golden);
    (golden.options, rope)
}

fn whole(n: usize) -> Length {
    Length::whole(n)
}

fn method(name: &str) -> Result<&'static dyn FrequencyMethod, OptionError> {
    find(name)
}

fn none(rope: &Rope, length: Length) -> Spectrum {
    Choice::<dyn FrequencyMethod>::default()
        .spectrum(rope, length)
        .unwrap()
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs(),
        "{what}: found {found}, expected {expected}"
    );
}

#[test]
fn names_are_unique_and_found() {
    let names: BTreeSet<_> = METHODS.iter().map(|method| method.name()).collect();
    assert_eq!(names.len(), METHODS.len());
    for name in &names {
        assert_eq!(method(name).unwrap().name(), *name);
    }
    let message = method("NTK").err().unwrap().to_string();
    for name in names {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn every_method_is_described() {
    for method in METHODS {
        assert!(!method.summary().is_empty() && !method.summary().contains('\n'));
        assert!(!method.source().is_empty());
        for option in method.options() {
            assert!(!option.meaning.is_empty());
        }
    }
}

#[test]
fn golden_spectra() {
    for &method in METHODS {
        for golden in goldens_of(method) {
            let length = Length {
                total: golden.total,
                prefill: golden.prefill,
            };
            let spectrum = method
                .spectrum(&model(&golden), length, &golden.options)
                .unwrap();
            let what = format!("{} {:?} at {}", method.name(), golden.options, golden.total);
            assert_close(spectrum.mscale, golden.mscale, &what);
            for &(i, expected) in &golden.inv_freq {
                assert_close(
                    spectrum.inv_freq[i],
                    expected,
                    &format!("{what}, index {i}"),
                );
            }
        }
    }
}

#[test]
fn spectra_are_well_formed_and_repeatable() {
    for &method in METHODS {
        for golden in goldens_of(method) {
            let (rope, options) = (model(&golden), &golden.options);
            for n in [1, 17, 2047, 2048, 2049, 32768, 1_000_000] {
                let spectrum = method.spectrum(&rope, whole(n), options).unwrap();
                assert_eq!(spectrum.inv_freq.len(), rope.dim / 2);
                assert!(
                    spectrum
                        .inv_freq
                        .iter()
                        .all(|&theta| theta > 0.0 && theta <= 1.0)
                );
                assert!(spectrum.inv_freq.is_sorted_by(|high, low| high > low));
                assert!(spectrum.mscale.is_finite() && spectrum.mscale > 0.0);
                let again = method.spectrum(&rope, whole(n), options).unwrap();
                assert_eq!(spectrum, again);
            }
        }
    }
}

/// What serde says a method's type accepts: the quoted names of its error about an unknown key,
/// after that key.
fn accepted(method: &dyn FrequencyMethod) -> BTreeSet<String> {
    let (mut options, rope) = example(method);
    options.insert("no_such_option".to_owned(), json!(1));
    let error = method.spectrum(&rope, whole(64), &options).unwrap_err();
    let OptionError::Options { reason, .. } = &error else {
        panic!("`{}` takes an unknown option: {error}", method.name());
    };
    assert!(error.to_string().contains(method.name()), "{error}");
    for option in method.options() {
        assert!(error.to_string().contains(option.name), "{error}");
    }
    let reason = reason.to_string();
    let quoted: Vec<_> = reason.split('`').skip(1).step_by(2).collect();
    assert_eq!(quoted[0], "no_such_option");
    quoted[1..].iter().map(|name| name.to_string()).collect()
}

#[test]
fn unknown_options_are_refused_and_documented_ones_are_all_there_are() {
    for &method in METHODS {
        let documented: BTreeSet<_> = method
            .options()
            .iter()
            .map(|option| option.name.to_owned())
            .collect();
        assert_eq!(documented.len(), method.options().len());
        assert_eq!(documented, accepted(method), "`{}`", method.name());
    }
}

#[test]
fn documented_defaults_are_the_defaults() {
    for &method in METHODS {
        let (example, rope) = example(method);
        let spectrum = |options: &Options| method.spectrum(&rope, whole(8192), options);
        for option in method.options() {
            let what = format!("`{}` of `{}`", option.name, method.name());
            let mut without = example.clone();
            without.remove(option.name);
            match option.default {
                "required" => assert!(spectrum(&without).is_err(), "{what}"),
                "optional" => {}
                literal => {
                    let mut with = without.clone();
                    let default: Value = serde_json::from_str(literal).expect(&what);
                    with.insert(option.name.to_owned(), default);
                    assert_eq!(
                        spectrum(&with).unwrap(),
                        spectrum(&without).unwrap(),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[test]
fn impossible_models_and_lengths_are_refused() {
    for &method in METHODS {
        let (options, good) = example(method);
        let refused = |rope: Rope, length: Length, key: &str| {
            let error = method.spectrum(&rope, length, &options).unwrap_err();
            assert!(matches!(error, OptionError::Geometry { key: found, .. } if found == key));
        };
        for dim in [0, 1, 127] {
            refused(
                Rope {
                    dim,
                    ..good.clone()
                },
                whole(64),
                "dim",
            );
        }
        for base in [1.0, -1e4, f64::NAN, f64::INFINITY] {
            refused(
                Rope {
                    base,
                    ..good.clone()
                },
                whole(64),
                "base",
            );
        }
        refused(
            Rope {
                trained: 0,
                ..good.clone()
            },
            whole(64),
            "trained",
        );
        for prefill in [0, 65] {
            refused(good.clone(), Length { total: 64, prefill }, "prefill");
        }
    }
}

#[test]
fn methods_are_plain_rope_exactly_where_they_say_so() {
    let rope = Rope {
        dim: 128,
        base: 1e4,
        trained: 2048,
    };
    for &method in METHODS {
        for case in goldens(method).neutral {
            let Neutral {
                options,
                total,
                prefill,
            } = case;
            let length = Length { total, prefill };
            let found = method.spectrum(&rope, length, &options).unwrap();
            let plain = none(&rope, length);
            let what = format!("`{}` with {options:?} at {length:?}", method.name());
            assert_close(found.mscale, 1.0, &what);
            for (found, plain) in found.inv_freq.iter().zip(&plain.inv_freq) {
                assert_close(*found, *plain, &what);
            }
        }
        // And nowhere near it past the trained length, or the comparison above would prove nothing.
        let (options, rope) = example(method);
        let found = method.spectrum(&rope, whole(32768), &options).unwrap();
        let plain = none(&rope, whole(32768));
        let ratio = plain.inv_freq[rope.dim / 2 - 1] / found.inv_freq[rope.dim / 2 - 1];
        assert_eq!(method.name() == "none", ratio < 1.5, "`{}`", method.name());
    }
}

#[test]
fn these_leave_the_highest_frequency_alone() {
    for name in [
        "none",
        "ntk",
        "dynamic_ntk",
        "dynamic_ntk_hf",
        "ntk_by_parts",
        "yarn",
        "llama3",
    ] {
        let method = method(name).unwrap();
        for golden in goldens_of(method) {
            let spectrum = method
                .spectrum(&model(&golden), whole(32768), &golden.options)
                .unwrap();
            assert_eq!(spectrum.inv_freq[0], 1.0, "{name} {:?}", golden.options);
        }
    }
}

#[test]
fn llama3_is_by_parts_on_the_papers_ramp_from_1_to_4() {
    for dim in [16, 128] {
        for trained in [2048, 8192] {
            let rope = Rope {
                dim,
                base: 5e5,
                trained,
            };
            let options = json!({"factor": 8, "ramp": "paper", "beta_fast": 4, "beta_slow": 1});
            let by_parts = method("ntk_by_parts")
                .unwrap()
                .spectrum(&rope, whole(32768), options.as_object().unwrap())
                .unwrap();
            let llama3 = method("llama3")
                .unwrap()
                .spectrum(&rope, whole(32768), &Options::new())
                .unwrap();
            assert_eq!(llama3, by_parts);
        }
    }
}
