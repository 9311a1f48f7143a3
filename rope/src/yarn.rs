//! YaRN: NTK-by-parts, and a temperature: cos and sin are multiplied by `0.1 * ln s + 1`. With
//! `dynamic = true` both follow `s = max(1, n/L)`. Source: arXiv 2309.00071, equations 21-22 and
//! section 3.3.

use serde::Deserialize;

use crate::ntk_by_parts::{
    BETA_FAST, BETA_SLOW, DYNAMIC, FACTOR, RAMP, Ramp, check_betas, inv_freq, scale,
};
use crate::options::{parse, positive};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `yarn`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    factor: Option<f64>,
    dynamic: bool,
    ramp: Ramp,
    beta_fast: f64,
    beta_slow: f64,
    attention_factor: Option<f64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            factor: None,
            dynamic: false,
            ramp: Ramp::Code,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
        }
    }
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "yarn"
    }

    fn summary(&self) -> &'static str {
        "NTK-by-parts with a temperature on the attention logits"
    }

    fn source(&self) -> &'static str {
        "YaRN, arXiv 2309.00071, equations 17-22"
    }

    fn options(&self) -> &'static [OptionDoc] {
        const ATTENTION_FACTOR: OptionDoc = OptionDoc {
            name: "attention_factor",
            default: "optional",
            meaning: "multiplies cos and sin instead of 0.1 ln s + 1",
        };
        &[
            FACTOR,
            DYNAMIC,
            RAMP,
            BETA_FAST,
            BETA_SLOW,
            ATTENTION_FACTOR,
        ]
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
        let mscale = match params.attention_factor {
            Some(given) => positive(self.name(), "attention_factor", given)?,
            None => 0.1 * s.ln() + 1.0,
        };
        Ok(Spectrum {
            inv_freq: inv_freq(rope, s, params.ramp, fast, slow),
            mscale,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{assert_close, options, rope, whole};

    fn yarn(n: usize, json: serde_json::Value) -> Spectrum {
        Frequencies
            .spectrum(&rope(1e4, 2048), whole(n), &options(json))
            .unwrap()
    }

    #[test]
    fn golden_mscales() {
        let golden = [
            (2, 1.0693, 1.1434),
            (4, 1.1386, 1.2965),
            (8, 1.2079, 1.4591),
            (16, 1.2773, 1.6314),
        ];
        for (factor, mscale, square) in golden {
            let found = yarn(2048, json!({ "factor": factor })).mscale;
            assert_close(found, mscale, 5e-5);
            assert_close(found * found, square, 5e-5);
            // At n = factor * L the dynamic scale is that factor.
            let dynamic = yarn(2048 * factor, json!({ "dynamic": true })).mscale;
            assert_eq!(dynamic, found);
        }
    }

    #[test]
    fn frequencies_are_those_of_by_parts() {
        for ramp in ["code", "paper"] {
            let json = json!({ "factor": 8, "ramp": ramp, "beta_fast": 24, "beta_slow": 2 });
            let by_parts = crate::ntk_by_parts::Frequencies
                .spectrum(&rope(1e4, 2048), whole(8192), &options(json.clone()))
                .unwrap();
            assert_eq!(yarn(8192, json).inv_freq, by_parts.inv_freq);
        }
    }

    #[test]
    fn attention_factor_replaces_the_temperature_only() {
        let published = yarn(8192, json!({ "factor": 4 }));
        let given = yarn(8192, json!({ "factor": 4, "attention_factor": 1.5 }));
        assert_eq!(given.mscale, 1.5);
        assert_eq!(given.inv_freq, published.inv_freq);
        let wrong = options(json!({ "factor": 4, "attention_factor": 0 }));
        let message = Frequencies
            .spectrum(&rope(1e4, 2048), whole(8192), &wrong)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`attention_factor` is 0"), "{message}");
    }
}
