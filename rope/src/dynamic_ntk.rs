//! Qwen's dynamic NTK scaling: `alpha = max(1, 2^(ceil(log2(n/L)) + 1) - 1)`, base `b *
//! alpha^(d/(d-2))`. Alpha is a step function: 1 up to `L`, 3 up to `2L`, 7 up to `4L`, and so on.
//! It is `dynamic_ntk_hf` with factor 2 and `n/L` rounded up to a power of two. Source: QwenLM's
//! modeling_qwen.py, `get_ntk_alpha` and `RotaryEmbedding`.

use serde::Deserialize;

use crate::options::parse;
use crate::{
    FrequencyMethod, Length, OptionDoc, OptionError, Options, Rope, Spectrum, Variant, check,
};

/// Registry entry of `dynamic_ntk`.
pub struct Frequencies;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    freeze: Option<Freeze>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Freeze {
    Prefill,
}

/// Qwen's alpha for `n` tokens.
///
/// In integers, because a floating logarithm can land on the wrong side of a power of two: the
/// smallest `2^k` with `L * 2^k >= n` is the smallest that is at least `n/L` rounded up.
fn alpha(n: usize, trained: usize) -> f64 {
    2.0 * n.div_ceil(trained).next_power_of_two() as f64 - 1.0
}

impl Variant for Frequencies {
    fn name(&self) -> &'static str {
        "dynamic_ntk"
    }

    fn summary(&self) -> &'static str {
        "Qwen's NTK scaling: the base grows in steps at powers of two of the trained length"
    }

    fn source(&self) -> &'static str {
        "QwenLM modeling_qwen.py, get_ntk_alpha"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "freeze",
            default: "optional",
            meaning: "\"prefill\": alpha from the tokens of the first forward call, as the official code does; left out: \
                      from the total length of the pass",
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
        let Params { freeze } = parse(self, options)?;
        let n = match freeze {
            Some(Freeze::Prefill) => length.prefill,
            None => length.total,
        };
        Ok(Spectrum {
            inv_freq: rope.inv_freq(rope.ntk_base(alpha(n, rope.trained))),
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
    fn golden_alphas() {
        let at_2048 = [
            (1, 1.0),
            (2048, 1.0),
            (2049, 3.0),
            (4096, 3.0),
            (4097, 7.0),
            (8192, 7.0),
            (8193, 15.0),
            (16384, 15.0),
            (16385, 31.0),
            (32768, 31.0),
        ];
        for (n, expected) in at_2048 {
            assert_eq!(alpha(n, 2048), expected, "n = {n}");
        }
        let at_8192 = [
            (8192, 1.0),
            (8193, 3.0),
            (16384, 3.0),
            (16385, 7.0),
            (32768, 7.0),
            (32769, 15.0),
            (65536, 15.0),
        ];
        for (n, expected) in at_8192 {
            assert_eq!(alpha(n, 8192), expected, "n = {n}");
        }
    }

    #[test]
    fn alpha_steps_just_after_each_doubling_of_any_trained_length() {
        for trained in [2, 3, 1000, 2047, 2048, 8191] {
            for k in 0..24 {
                let edge = trained << k;
                assert_eq!(alpha(edge, trained), ((2_u64 << k) - 1) as f64);
                assert_eq!(alpha(edge + 1, trained), ((4_u64 << k) - 1) as f64);
            }
        }
    }

    #[test]
    fn golden_bases() {
        let golden = [
            (2048, 10000.0),
            (4096, 30527.7),
            (8192, 72195.9),
            (16384, 156588.3),
            (32768, 327366.4),
        ];
        for (n, base) in golden {
            let spectrum = Frequencies
                .spectrum(&rope(1e4, 2048), whole(n), &Options::new())
                .unwrap();
            assert_close(base_of(&spectrum), base, 0.05);
        }
    }

    #[test]
    fn freezing_takes_the_prefill_length() {
        let rope = rope(1e4, 2048);
        let length = Length {
            total: 8192,
            prefill: 4096,
        };
        let frozen = options(json!({ "freeze": "prefill" }));
        assert_eq!(
            Frequencies.spectrum(&rope, length, &frozen).unwrap(),
            Frequencies
                .spectrum(&rope, whole(4096), &Options::new())
                .unwrap()
        );
        assert_eq!(
            Frequencies
                .spectrum(&rope, length, &Options::new())
                .unwrap(),
            Frequencies
                .spectrum(&rope, whole(8192), &Options::new())
                .unwrap()
        );
        let message = Frequencies
            .spectrum(&rope, length, &options(json!({ "freeze": "first" })))
            .unwrap_err()
            .to_string();
        assert!(message.contains("`first`"), "{message}");
        assert!(message.contains("`prefill`"), "{message}");
    }
}
