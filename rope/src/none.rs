//! Plain RoPE: `theta_i = b^(-2i/d)`, whatever the length. Source: RoFormer, arXiv 2104.09864,
//! section 3.2.2.

use serde::Deserialize;

use crate::options::parse;
use crate::{FrequencyMethod, Length, OptionError, Options, Rope, Spectrum, Variant, check};

/// Registry entry of `none`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "the frequencies the model was trained with, at every length"
    }

    fn source(&self) -> &'static str {
        "RoFormer, arXiv 2104.09864"
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
        let Params {} = parse(self, options)?;
        Ok(Spectrum {
            inv_freq: rope.inv_freq(rope.base),
            mscale: 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, rope, whole};

    #[test]
    fn frequencies_are_geometric() {
        let spectrum = Frequencies
            .spectrum(&rope(1e4, 2048), whole(32768), &Options::new())
            .unwrap();
        assert_eq!(spectrum.inv_freq[0], 1.0);
        assert_close(spectrum.inv_freq[16], 0.1, 1e-15);
        assert_close(spectrum.inv_freq[32], 0.01, 1e-16);
        assert_close(spectrum.inv_freq[48], 0.001, 1e-17);
        assert_eq!(spectrum.mscale, 1.0);
    }
}
