//! Llama 3.1's scaling: wavelengths below `L/4` are kept, those above `L` divided by 8, with a mix
//! between that is linear in `L/lambda`. That is NTK-by-parts with the paper's ramp, other
//! constants and no temperature. Source: meta-llama's llama-models, `apply_scaling`; `llama3` in
//! Hugging Face transformers.

use serde::Deserialize;

use crate::ntk_by_parts::{Ramp, check_betas, inv_freq};
use crate::options::{at_least_one, parse};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `llama3`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
        }
    }
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "llama3"
    }

    fn summary(&self) -> &'static str {
        "Llama 3.1's by-parts scaling: short wavelengths kept, long ones stretched"
    }

    fn source(&self) -> &'static str {
        "meta-llama llama-models, apply_scaling"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[
            OptionDoc {
                name: "factor",
                default: "8",
                meaning: "s >= 1, what low frequencies are divided by",
            },
            OptionDoc {
                name: "low_freq_factor",
                default: "1",
                meaning: "a frequency with at most this many turns within the trained length is divided by s",
            },
            OptionDoc {
                name: "high_freq_factor",
                default: "4",
                meaning: "a frequency with at least this many turns within the trained length is kept",
            },
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
        let s = at_least_one(self.name(), "factor", params.factor)?;
        let (high, low) = (params.high_freq_factor, params.low_freq_factor);
        check_betas(
            self.name(),
            ("high_freq_factor", high),
            ("low_freq_factor", low),
        )?;
        Ok(Spectrum {
            inv_freq: inv_freq(rope, s, Ramp::Paper, high, low),
            mscale: 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use serde_json::json;

    use super::*;
    use crate::testing::{assert_close, options, rope, whole};

    #[test]
    fn the_three_regions_of_the_published_rule() {
        let rope = rope(5e5, 8192);
        let plain = rope.inv_freq(rope.base);
        let scaled = Frequencies
            .spectrum(&rope, whole(32768), &Options::new())
            .unwrap()
            .inv_freq;
        let mut seen = [0; 3];
        for (theta, found) in plain.into_iter().zip(scaled) {
            let wavelength = TAU / theta;
            if wavelength < 2048.0 {
                seen[0] += 1;
                assert_eq!(found, theta);
            } else if wavelength > 8192.0 {
                seen[1] += 1;
                assert_eq!(found, theta / 8.0);
            } else {
                seen[2] += 1;
                let t = (8192.0 / wavelength - 1.0) / 3.0;
                assert_close(found, (1.0 - t) * theta / 8.0 + t * theta, 1e-15);
            }
        }
        assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    }

    #[test]
    fn the_ends_of_the_ramp_must_be_in_order() {
        let swapped = options(json!({ "low_freq_factor": 4, "high_freq_factor": 1 }));
        let message = Frequencies
            .spectrum(&rope(5e5, 8192), whole(8192), &swapped)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`high_freq_factor` is 1"), "{message}");
        assert!(message.contains("low_freq_factor = 4"), "{message}");
    }
}
