//! NTK-by-parts: frequencies that turn many times within the trained length are kept, those that
//! turn less than once are divided by `s`, and a ramp mixes the two between: `theta_i * ((1 -
//! gamma_i)/s + gamma_i)`.
//!
//! There are two ramps, and they differ:
//! - `paper`: linear in the turns `r = L/lambda_i`, from `beta_slow` (divide) to `beta_fast`
//!   (keep). Source: YaRN, arXiv 2309.00071, equations 17-20.
//! - `code`: linear in the index `i`, between the indices at which `r` is `beta_fast` (rounded
//!   down, keep) and `beta_slow` (rounded up, divide). Source: the jquesnelle/yarn repository,
//!   Hugging Face's `yarn`, llama.cpp.

use std::f64::consts::TAU;

use serde::Deserialize;

use crate::options::{at_least_one, parse, positive};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `ntk_by_parts`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    factor: Option<f64>,
    dynamic: bool,
    ramp: Ramp,
    beta_fast: f64,
    beta_slow: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            factor: None,
            dynamic: false,
            ramp: Ramp::Code,
            beta_fast: 32.0,
            beta_slow: 1.0,
        }
    }
}

/// In what the mix of kept and divided frequencies is linear.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ramp {
    Code,
    Paper,
}

pub(crate) const FACTOR: OptionDoc = OptionDoc {
    name: "factor",
    default: "required",
    meaning: "s >= 1, the wanted length over the trained one; left out with dynamic = true",
};
pub(crate) const DYNAMIC: OptionDoc = OptionDoc {
    name: "dynamic",
    default: "false",
    meaning: "true: s = max(1, n/L) from the total length of the pass, instead of factor",
};
pub(crate) const RAMP: OptionDoc = OptionDoc {
    name: "ramp",
    default: "\"code\"",
    meaning: "\"code\": linear in the dimension index, as published code has it; \"paper\": linear in the turns",
};
pub(crate) const BETA_FAST: OptionDoc = OptionDoc {
    name: "beta_fast",
    default: "32",
    meaning: "a frequency with at least this many turns within the trained length is kept",
};
pub(crate) const BETA_SLOW: OptionDoc = OptionDoc {
    name: "beta_slow",
    default: "1",
    meaning: "a frequency with at most this many turns within the trained length is divided by s",
};

/// The scale `s`: the configured factor, or `max(1, n/L)` if `dynamic`.
pub(crate) fn scale(
    variant: &'static str,
    factor: Option<f64>,
    dynamic: bool,
    rope: &Rope,
    length: Length,
) -> Result<f64, OptionError> {
    match factor {
        Some(factor) if dynamic => Err(OptionError::Conflict {
            variant,
            key: "factor",
            value: factor.to_string(),
            other: "dynamic",
            other_value: dynamic.to_string(),
            remedy: "remove factor, or set dynamic = false",
        }),
        Some(factor) => at_least_one(variant, "factor", factor),
        None if dynamic => Ok(rope.dynamic_scale(length.total)),
        None => Err(OptionError::Missing {
            variant,
            key: "factor",
            remedy: "give the scale, or set dynamic = true",
        }),
    }
}

/// Refuses a ramp without width or with ends that are not positive. Each end is its key and value,
/// in turns.
pub(crate) fn check_betas(
    variant: &'static str,
    (fast_key, fast): (&str, f64),
    (slow_key, slow): (&str, f64),
) -> Result<(), OptionError> {
    positive(variant, slow_key, slow)?;
    positive(variant, fast_key, fast)?;
    if fast > slow {
        return Ok(());
    }
    Err(OptionError::Value {
        variant,
        key: fast_key.to_owned(),
        value: fast.to_string(),
        rule: format!("greater than {slow_key} = {slow}"),
    })
}

/// The `dim / 2` mixed frequencies, in radians per position, for a scale `s` and a ramp between
/// `beta_fast` and `beta_slow` turns.
pub(crate) fn inv_freq(
    rope: &Rope,
    s: f64,
    ramp: Ramp,
    beta_fast: f64,
    beta_slow: f64,
) -> Vec<f64> {
    rope.inv_freq(rope.base)
        .into_iter()
        .zip(kept(rope, ramp, beta_fast, beta_slow))
        .map(|(theta, gamma)| theta * ((1.0 - gamma) / s + gamma))
        .collect()
}

/// The `dim / 2` weights `gamma`: 1 keeps a frequency, 0 divides it.
fn kept(rope: &Rope, ramp: Ramp, beta_fast: f64, beta_slow: f64) -> Vec<f64> {
    match ramp {
        Ramp::Paper => rope
            .inv_freq(rope.base)
            .into_iter()
            .map(|theta| {
                let turns = rope.trained as f64 * theta / TAU;
                ((turns - beta_slow) / (beta_fast - beta_slow)).clamp(0.0, 1.0)
            })
            .collect(),
        Ramp::Code => {
            let (low, high) = index_range(rope, beta_fast, beta_slow);
            // A ramp between equal indices becomes a step just after them, as in the published
            // code.
            let width = if high > low { high - low } else { 0.001 };
            (0..rope.dim / 2)
                .map(|i| 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0))
                .collect()
        }
    }
}

/// The dimension indices between which the `code` ramp falls from 1 to 0.
fn index_range(rope: &Rope, beta_fast: f64, beta_slow: f64) -> (f64, f64) {
    let d = rope.dim as f64;
    // Clamped to d - 1, not to the last pair's d/2 - 1: that is what published code does, and it
    // shapes the ramp.
    let within = |index: f64| index.clamp(0.0, d - 1.0);
    (
        within(index_at(rope, beta_fast).floor()),
        within(index_at(rope, beta_slow).ceil()),
    )
}

/// The (fractional) dimension index whose frequency makes `turns` full turns within the trained
/// length.
fn index_at(rope: &Rope, turns: f64) -> f64 {
    rope.dim as f64 * (rope.trained as f64 / (TAU * turns)).ln() / (2.0 * rope.base.ln())
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "ntk_by_parts"
    }

    fn summary(&self) -> &'static str {
        "high frequencies kept, low ones divided, a ramp between; no temperature"
    }

    fn source(&self) -> &'static str {
        "YaRN, arXiv 2309.00071, equations 17-20; jquesnelle/yarn for the code ramp"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[FACTOR, DYNAMIC, RAMP, BETA_FAST, BETA_SLOW]
    }
}

impl FrequencyMethod for Frequencies {
    fn spectrum(
        &self,
        rope: &Rope,
        length: Length,
        options: &Options,
    ) -> Result<Spectrum, OptionError> {
        check(rope, length)?;
        let params: Params = parse(self, options)?;
        let s = scale(self.name(), params.factor, params.dynamic, rope, length)?;
        let (fast, slow) = (params.beta_fast, params.beta_slow);
        check_betas(self.name(), ("beta_fast", fast), ("beta_slow", slow))?;
        Ok(Spectrum {
            inv_freq: inv_freq(rope, s, params.ramp, fast, slow),
            mscale: 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{assert_close, options, rope, whole};

    #[test]
    fn golden_index_ranges() {
        let golden = [
            (1e4, 2048, 16.0, 41.0),
            (1e4, 4096, 20.0, 46.0),
            (1e4, 8192, 25.0, 50.0),
            (1e6, 32768, 23.0, 40.0),
        ];
        for (base, trained, low, high) in golden {
            assert_eq!(index_range(&rope(base, trained), 32.0, 1.0), (low, high));
        }
        assert_close(index_at(&rope(1e4, 2048), 32.0), 16.128, 5e-4);
        assert_close(index_at(&rope(1e4, 2048), 1.0), 40.210, 5e-4);
        assert_close(index_at(&rope(1e4, 8192), 32.0), 25.761, 5e-4);
        assert_close(index_at(&rope(1e4, 8192), 1.0), 49.843, 5e-4);
    }

    #[test]
    fn golden_kept_weights() {
        let rope = rope(1e4, 8192);
        let paper = kept(&rope, Ramp::Paper, 32.0, 1.0);
        let code = kept(&rope, Ramp::Code, 32.0, 1.0);
        let golden = [
            (30, 0.529, 0.80),
            (35, 0.241, 0.60),
            (40, 0.101, 0.40),
            (44, 0.043, 0.24),
        ];
        for (i, in_paper, in_code) in golden {
            assert_close(paper[i], in_paper, 5e-4);
            assert_close(code[i], in_code, 1e-12);
        }
        for weights in [paper, code] {
            assert_eq!(weights[0], 1.0);
            assert_eq!(weights[63], 0.0);
        }
    }

    #[test]
    fn dynamic_follows_the_total_length() {
        let rope = rope(1e4, 2048);
        let dynamic = options(json!({ "dynamic": true }));
        let fixed = options(json!({ "factor": 1.5 }));
        assert_eq!(
            Frequencies.spectrum(&rope, whole(3072), &dynamic).unwrap(),
            Frequencies.spectrum(&rope, whole(3072), &fixed).unwrap()
        );
    }

    #[test]
    fn a_trained_length_shorter_than_one_turn_still_keeps_the_highest_frequency() {
        let short = rope(1e4, 4);
        let spectrum = Frequencies
            .spectrum(&short, whole(64), &options(json!({ "factor": 4 })))
            .unwrap();
        assert_eq!(spectrum.inv_freq[0], 1.0);
        assert_eq!(spectrum.inv_freq[1], short.inv_freq(1e4)[1] / 4.0);
    }

    #[test]
    fn contradictions_and_bad_ranges_name_both_values() {
        let refuse = |json| {
            Frequencies
                .spectrum(&rope(1e4, 2048), whole(8192), &options(json))
                .unwrap_err()
                .to_string()
        };
        let both = refuse(json!({ "dynamic": true, "factor": 4 }));
        assert!(both.contains("`factor` = 4 and `dynamic` = true"), "{both}");
        let neither = refuse(json!({}));
        assert!(neither.contains("`factor` is missing"), "{neither}");
        let betas = refuse(json!({ "factor": 4, "beta_fast": 1, "beta_slow": 2 }));
        assert!(betas.contains("`beta_fast` is 1"), "{betas}");
        assert!(betas.contains("beta_slow = 2"), "{betas}");
        let ramp = refuse(json!({ "factor": 4, "ramp": "linear" }));
        assert!(ramp.contains("`linear`"), "{ramp}");
        assert!(refuse(json!({ "factor": 4, "beta_slow": 0 })).contains("above 0"));
        assert!(refuse(json!({ "factor": 0.9 })).contains("`factor` is 0.9"));
    }
}
