//! Static NTK-aware scaling: the base becomes `b * alpha^(d/(d-2))`, so the lowest frequency is
//! divided by `alpha`, the highest not at all. Source: YaRN, arXiv 2309.00071, definition 1 and
//! equations 14-16.

use serde::Deserialize;

use crate::options::{at_least_one, parse};
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `ntk`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    factor: f64,
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "ntk"
    }

    fn summary(&self) -> &'static str {
        "NTK-aware scaling: a larger base, fixed for all lengths"
    }

    fn source(&self) -> &'static str {
        "YaRN, arXiv 2309.00071, definition 1"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "factor",
            default: "required",
            meaning: "alpha >= 1, what the lowest frequency is divided by; usually set above the wanted length over the \
                      trained one, since frequencies between are divided by less",
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
        let alpha = at_least_one(self.name(), "factor", factor)?;
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
            (1, 10000.0),
            (3, 30527.7),
            (7, 72195.9),
            (15, 156588.3),
            (31, 327366.4),
        ];
        for (alpha, base) in golden {
            let spectrum = Frequencies
                .spectrum(
                    &rope(1e4, 2048),
                    whole(32768),
                    &options(json!({ "factor": alpha })),
                )
                .unwrap();
            assert_close(base_of(&spectrum), base, 0.05);
        }
    }

    #[test]
    fn the_lowest_frequency_is_divided_by_alpha() {
        let plain = rope(1e4, 2048).inv_freq(1e4);
        let scaled = rope(1e4, 2048).inv_freq(rope(1e4, 2048).ntk_base(4.0));
        assert_close(plain[63] / scaled[63], 4.0, 1e-12);
    }

    #[test]
    fn two_dimensions_have_only_the_highest_frequency() {
        let rope = Rope {
            dim: 2,
            base: 1e4,
            trained: 2048,
        };
        let spectrum = Frequencies.spectrum(&rope, whole(8192), &options(json!({ "factor": 4 })));
        assert_eq!(spectrum.unwrap().inv_freq, [1.0]);
    }
}
