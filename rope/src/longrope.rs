//! LongRoPE: each frequency divided by its own searched factor, from one list up to the trained
//! length and another beyond it; cos and sin multiplied by `sqrt(1 + ln s / ln L)`. As in Hugging
//! Face's `longrope`, that temperature applies at every length, the short ones too, and no initial
//! positions are left unscaled. Source: arXiv 2402.13753; microsoft/LongRoPE.

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::options::{at_least_one, parse, positive};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `longrope`.
pub struct Frequencies;

const NAME: &str = "longrope";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    factor: Option<f64>,
    attention_factor: Option<f64>,
    config: Option<String>,
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "a searched divisor per frequency, one list up to the trained length and one beyond"
    }

    fn source(&self) -> &'static str {
        "LongRoPE, arXiv 2402.13753; transformers modeling_rope_utils.py, longrope"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[
            OptionDoc {
                name: "short_factor",
                default: "optional",
                meaning: "list of dim/2 divisors for n <= L; needed unless config gives it",
            },
            OptionDoc {
                name: "long_factor",
                default: "optional",
                meaning: "list of dim/2 divisors for n > L; needed unless config gives it",
            },
            OptionDoc {
                name: "factor",
                default: "optional",
                meaning: "s >= 1, the wanted length over the trained one, of which the temperature is made; needed unless \
                          attention_factor or config gives it",
            },
            OptionDoc {
                name: "attention_factor",
                default: "optional",
                meaning: "multiplies cos and sin instead of sqrt(1 + ln s / ln L)",
            },
            OptionDoc {
                name: "config",
                default: "optional",
                meaning: "path of a Hugging Face config.json whose rope_scaling holds both lists; factor is then \
                          max_position_embeddings over original_max_position_embeddings, unless factor or \
                          attention_factor is given here",
            },
        ]
    }
}

impl FrequencyMethod for Frequencies {
    fn resolve(&self, options: &mut Options) -> Result<(), OptionError> {
        let Params {
            short_factor,
            long_factor,
            config,
            ..
        } = parse(self, options)?;
        let Some(path) = config else { return Ok(()) };
        for (key, list) in [("short_factor", short_factor), ("long_factor", long_factor)] {
            if let Some(list) = list {
                return Err(OptionError::Conflict {
                    variant: NAME,
                    key,
                    value: format!("{list:?}"),
                    other: "config",
                    other_value: format!("{path:?}"),
                    remedy: "give the lists here or in the file, not both",
                });
            }
        }
        let read = fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| from_config_json(&text))
            .map_err(|reason| OptionError::File {
                variant: NAME,
                key: "config",
                path,
                reason,
            })?;
        options.remove("config");
        let temperature_given =
            options.contains_key("factor") || options.contains_key("attention_factor");
        for (key, value) in read {
            let temperature = key == "factor" || key == "attention_factor";
            if !(temperature && temperature_given) {
                options.insert(key, value);
            }
        }
        Ok(())
    }

    fn spectrum(
        &self,
        rope: &Rope,
        length: Length,
        options: &Options,
    ) -> Result<Spectrum, OptionError> {
        check(rope, length)?;
        let params: Params = parse(self, options)?;
        if let Some(path) = params.config {
            return Err(OptionError::Unresolved {
                variant: NAME,
                key: "config",
                path,
            });
        }
        // Both lists are checked whichever is used, so that a mistake does not wait for a long run
        // to show.
        let short = divisors("short_factor", params.short_factor, rope)?;
        let long = divisors("long_factor", params.long_factor, rope)?;
        let mscale = temperature(params.factor, params.attention_factor, rope)?;
        let divisors = if length.total <= rope.trained {
            short
        } else {
            long
        };
        let inv_freq = rope
            .inv_freq(rope.base)
            .into_iter()
            .zip(divisors)
            .map(|(theta, divisor)| theta / divisor)
            .collect();
        Ok(Spectrum { inv_freq, mscale })
    }
}

fn divisors(
    key: &'static str,
    list: Option<Vec<f64>>,
    rope: &Rope,
) -> Result<Vec<f64>, OptionError> {
    let list = list.ok_or(OptionError::Missing {
        variant: NAME,
        key,
        remedy: "give short_factor and long_factor, or config = the path of a config.json that has them",
    })?;
    if list.len() != rope.dim / 2 {
        return Err(OptionError::Value {
            variant: NAME,
            key: key.to_owned(),
            value: format!("a list of {}", list.len()),
            rule: format!("a list of dim/2 = {}", rope.dim / 2),
        });
    }
    for (i, &divisor) in list.iter().enumerate() {
        positive(NAME, &format!("{key}[{i}]"), divisor)?;
    }
    Ok(list)
}

fn temperature(
    factor: Option<f64>,
    attention_factor: Option<f64>,
    rope: &Rope,
) -> Result<f64, OptionError> {
    match (factor, attention_factor) {
        (Some(factor), Some(attention_factor)) => Err(OptionError::Conflict {
            variant: NAME,
            key: "factor",
            value: factor.to_string(),
            other: "attention_factor",
            other_value: attention_factor.to_string(),
            remedy: "remove one: factor has no other use here",
        }),
        (Some(factor), None) => {
            let s = at_least_one(NAME, "factor", factor)?;
            Ok((1.0 + s.ln() / (rope.trained as f64).ln()).sqrt())
        }
        (None, Some(attention_factor)) => positive(NAME, "attention_factor", attention_factor),
        (None, None) => Err(OptionError::Missing {
            variant: NAME,
            key: "factor",
            remedy: "give the wanted length over the trained one, or attention_factor",
        }),
    }
}

/// What matters here of a Hugging Face config.json.
#[derive(Deserialize)]
struct ModelConfig {
    rope_scaling: Option<RopeScaling>,
    max_position_embeddings: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// Unknown keys are refused: some variants carry temperatures of their own, and dropping those
/// would be silent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RopeScaling {
    short_factor: Vec<f64>,
    long_factor: Vec<f64>,
    factor: Option<f64>,
    attention_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    #[serde(rename = "type")]
    _type: Option<Value>,
    #[serde(rename = "rope_type")]
    _rope_type: Option<Value>,
}

/// The options that a config.json stands for: both lists, and `attention_factor` or else `factor`
/// if it has either.
fn from_config_json(text: &str) -> Result<Options, String> {
    let model: ModelConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let scaling = model
        .rope_scaling
        .ok_or("`rope_scaling` is missing; name a config.json of a model that uses LongRoPE")?;
    let original = model
        .original_max_position_embeddings
        .or(scaling.original_max_position_embeddings);
    let factor = match (model.max_position_embeddings, original) {
        (Some(extended), Some(original)) => Some(extended / original),
        _ => scaling.factor,
    };

    let mut options = Options::new();
    options.insert("short_factor".to_owned(), scaling.short_factor.into());
    options.insert("long_factor".to_owned(), scaling.long_factor.into());
    if let Some(attention_factor) = scaling.attention_factor {
        options.insert("attention_factor".to_owned(), attention_factor.into());
    } else if let Some(factor) = factor {
        options.insert("factor".to_owned(), factor.into());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{assert_close, options, rope, whole};

    const CONFIG: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/longrope_config.json"
    );

    #[test]
    fn golden_mscales() {
        let golden = [
            (2048, [1.04447, 1.08711, 1.12815, 1.16775]),
            (8192, [1.03775, 1.07417, 1.10940, 1.14354]),
        ];
        for (trained, mscales) in golden {
            for (factor, mscale) in [2.0, 4.0, 8.0, 16.0].into_iter().zip(mscales) {
                let found = temperature(Some(factor), None, &rope(1e4, trained)).unwrap();
                assert_close(found, mscale, 5e-6);
            }
        }
    }

    #[test]
    fn the_list_changes_just_past_the_trained_length_and_the_temperature_does_not() {
        let (short, long) = (vec![1.5; 64], vec![6.0; 64]);
        let options = options(json!({ "short_factor": short, "long_factor": long, "factor": 4 }));
        let rope = rope(1e4, 2048);
        let at = |n| Frequencies.spectrum(&rope, whole(n), &options).unwrap();
        assert_eq!(at(2048).inv_freq[0], 1.0 / 1.5);
        assert_eq!(at(2049).inv_freq[0], 1.0 / 6.0);
        assert_eq!(at(2048).mscale, at(2049).mscale);
        assert_close(at(2048).mscale, 1.08711, 5e-6);
    }

    #[test]
    fn a_config_json_stands_for_its_lists() {
        let mut found = options(json!({ "config": CONFIG }));
        Frequencies.resolve(&mut found).unwrap();
        let expected = json!({
            "short_factor": [1.0, 1.0, 1.0, 1.25, 1.5, 1.5, 2.0, 2.0],
            "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0],
            "factor": 32.0,
        });
        assert_eq!(found, options(expected));
        let again = found.clone();
        Frequencies.resolve(&mut found).unwrap();
        assert_eq!(found, again);
    }

    #[test]
    fn a_temperature_given_beside_the_config_wins() {
        let mut found = options(json!({ "config": CONFIG, "attention_factor": 1.25 }));
        Frequencies.resolve(&mut found).unwrap();
        assert_eq!(found["attention_factor"], json!(1.25));
        assert!(!found.contains_key("factor"));
    }

    #[test]
    fn a_config_json_may_give_the_temperature() {
        let lists = r#""rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]"#;
        let with =
            |more: &str| from_config_json(&format!(r#"{{"rope_scaling": {{{lists}{more}}}}}"#));
        let temperature = with(r#", "factor": 4.0, "attention_factor": 1.19"#).unwrap();
        assert_eq!(temperature["attention_factor"], json!(1.19));
        assert!(!temperature.contains_key("factor"));
        assert_eq!(with(r#", "factor": 4.0"#).unwrap()["factor"], json!(4.0));
        assert_eq!(with("").unwrap().len(), 2);
        assert!(
            with(r#", "short_mscale": 1.2"#)
                .unwrap_err()
                .contains("short_mscale")
        );
        assert!(from_config_json("{}").unwrap_err().contains("rope_scaling"));
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let refuse = |json| {
            Frequencies
                .resolve(&mut options(json))
                .unwrap_err()
                .to_string()
        };
        let absent = refuse(json!({ "config": "no/such/config.json" }));
        assert!(absent.contains("no/such/config.json"), "{absent}");
        let both = refuse(json!({ "config": CONFIG, "long_factor": [1.0] }));
        assert!(
            both.contains("`long_factor` = [1.0] and `config`"),
            "{both}"
        );
    }

    #[test]
    fn mistakes_in_the_options_name_both_values() {
        let refuse = |json| {
            Frequencies
                .spectrum(&rope(1e4, 2048), whole(8192), &options(json))
                .unwrap_err()
                .to_string()
        };
        let lists = |n: usize| (vec![1.0; n], vec![2.0; 64]);
        let (short, long) = lists(63);
        let length = refuse(json!({ "short_factor": short, "long_factor": long, "factor": 4 }));
        assert!(length.contains("63") && length.contains("64"), "{length}");
        let (mut short, long) = lists(64);
        let neither = refuse(json!({ "short_factor": short, "long_factor": long }));
        assert!(neither.contains("`factor` is missing"), "{neither}");
        let both = json!({ "short_factor": short, "long_factor": long, "factor": 4, "attention_factor": 1.1 });
        let both = refuse(both);
        assert!(
            both.contains("`factor` = 4 and `attention_factor` = 1.1"),
            "{both}"
        );
        short[7] = 0.0;
        let zero = refuse(json!({ "short_factor": short, "long_factor": long, "factor": 4 }));
        assert!(zero.contains("`short_factor[7]` is 0"), "{zero}");
        let missing = refuse(json!({ "factor": 4 }));
        assert!(missing.contains("`short_factor` is missing"), "{missing}");
        let unread = refuse(json!({ "config": "config.json" }));
        assert!(unread.contains("resolve"), "{unread}");
    }
}
