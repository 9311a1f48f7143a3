//! Position interpolation: every frequency divided by `s`, which is the same as every position
//! divided by `s`. Source: arXiv 2306.15595, equation 4; `linear` in Hugging Face transformers.

use serde::Deserialize;

use crate::options::{at_least_one, parse};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `linear`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    factor: f64,
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn summary(&self) -> &'static str {
        "position interpolation: all frequencies divided by one factor"
    }

    fn source(&self) -> &'static str {
        "arXiv 2306.15595, equation 4"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "factor",
            default: "required",
            meaning: "s >= 1, the wanted length over the trained one",
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
        let s = at_least_one(self.name(), "factor", factor)?;
        let mut inv_freq = rope.inv_freq(rope.base);
        inv_freq.iter_mut().for_each(|theta| *theta /= s);
        Ok(Spectrum {
            inv_freq,
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
    fn every_frequency_is_divided() {
        let spectrum = Frequencies
            .spectrum(
                &rope(1e4, 2048),
                whole(8192),
                &options(json!({ "factor": 4 })),
            )
            .unwrap();
        assert_eq!(spectrum.inv_freq[0], 0.25);
        assert_close(spectrum.inv_freq[32], 0.0025, 1e-17);
    }

    #[test]
    fn the_factor_must_be_given_and_at_least_one() {
        let refuse = |json| {
            Frequencies
                .spectrum(&rope(1e4, 2048), whole(8192), &options(json))
                .unwrap_err()
                .to_string()
        };
        let missing = refuse(json!({}));
        assert!(missing.contains("missing field `factor`"), "{missing}");
        let small = refuse(json!({ "factor": 0.5 }));
        assert!(small.contains("`factor` is 0.5"), "{small}");
        assert!(small.contains("at least 1"), "{small}");
        let nan = refuse(json!({ "factor": null }));
        assert!(nan.contains("`factor` is null, nan"), "{nan}");
    }
}
