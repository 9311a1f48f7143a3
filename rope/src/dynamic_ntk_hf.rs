//! Hugging Face's dynamic NTK scaling: `alpha = f * n/L - (f - 1)` with `n` at least `L`, base `b *
//! alpha^(d/(d-2))`. Factor 1 gives `alpha = n/L`. Source: transformers, modeling_rope_utils.py,
//! `_compute_dynamic_ntk_parameters`.

use serde::Deserialize;

use crate::options::{at_least_one, parse};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `dynamic_ntk_hf`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    factor: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "dynamic_ntk_hf"
    }

    fn summary(&self) -> &'static str {
        "Hugging Face's NTK scaling: the base grows smoothly with the length"
    }

    fn source(&self) -> &'static str {
        "transformers modeling_rope_utils.py, _compute_dynamic_ntk_parameters"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "factor",
            default: "1",
            meaning: "f >= 1, how fast the base grows with the length",
        }]
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
        let Params { factor } = parse(self, options)?;
        let f = at_least_one(self.name(), "factor", factor)?;
        let alpha = f * rope.dynamic_scale(length.total) - (f - 1.0);
        Ok(Spectrum {
            inv_freq: rope.inv_freq(rope.ntk_base(alpha)),
            mscale: 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{assert_close, base_of, options, rope, whole};

    #[test]
    fn golden_bases() {
        let golden = [
            (16384, 1, 20221.3),
            (16384, 2, 30527.7),
            (16384, 4, 51293.8),
            (32768, 1, 40889.9),
            (32768, 2, 72195.9),
            (32768, 4, 135402.0),
            (4096, 4, 10000.0),
        ];
        for (n, factor, base) in golden {
            let spectrum = Frequencies
                .spectrum(
                    &rope(1e4, 8192),
                    whole(n),
                    &options(json!({ "factor": factor })),
                )
                .unwrap();
            assert_close(base_of(&spectrum), base, 0.05);
        }
    }

    #[test]
    fn factor_two_is_qwens_rule_at_powers_of_two() {
        let rope = rope(1e4, 2048);
        for n in [2048, 4096, 8192, 16384, 32768] {
            let ours = Frequencies.spectrum(&rope, whole(n), &options(json!({ "factor": 2 })));
            let qwen = crate::dynamic_ntk::Frequencies.spectrum(&rope, whole(n), &Options::new());
            assert_eq!(ours.unwrap(), qwen.unwrap());
        }
    }
}
