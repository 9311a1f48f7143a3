//! RoPE frequency methods as plain `f64` functions.
//!
//! A rotary embedding turns pair `i` of a head's `dim` rotated dimensions by `position *
//! inv_freq[i]` radians. A frequency method chooses those `dim / 2` numbers, and one temperature
//! `mscale`, from the model's geometry ([`Rope`]) and the lengths in play ([`Length`]). It keeps no
//! state: the same arguments always give the same [`Spectrum`].
//!
//! Notation in the formulas: `d` rotated dimension, `b` base, `theta_i = b^(-2i/d)`, `lambda_i = 2
//! pi / theta_i` (tokens for one full turn), `L` trained length, `n` current length, `s` scale.
//!
//! A new method is one file that defines `Frequencies` and its name in the registry below;
//! `tests/registry.rs` then requires its golden values and a case in which it is plain RoPE.
//!
//! ```
//! use longspan_rope::{Choice, FrequencyMethod, Length, Rope};
//!
//! let rope = Rope { dim: 128, base: 10_000.0, trained: 2048 };
//! let choice: Choice<dyn FrequencyMethod> =
//!     serde_json::from_str(r#"{ "kind": "yarn", "factor": 4.0 }"#)?;
//! let spectrum = choice.spectrum(&rope, Length::whole(8192))?;
//! assert_eq!(spectrum.inv_freq.len(), 64);
//! assert_eq!(spectrum.inv_freq[0], 1.0);
//! assert!((spectrum.mscale - 1.1386).abs() < 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod choice;
mod error;
mod options;
mod registry;

pub use choice::{Choice, PerLayer};
pub use error::OptionError;
pub use options::{Options, at_least_one, parse, positive};
pub use registry::{Axis, OptionDoc, Variant, find};

registry! {
    /// Every frequency method, in the order in which help texts list them.
    pub static METHODS: [dyn FrequencyMethod] = Frequencies;
    none, linear, ntk, dynamic_ntk, dynamic_ntk_hf, ntk_by_parts, yarn, longrope, llama3
}

/// The rotary geometry of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Dimensions of a head that are rotated; even, at least 2.
    pub dim: usize,
    /// Base of the geometric progression of frequencies (`rope_theta`); above 1.
    pub base: f64,
    /// Length the model was trained on, in tokens; at least 2.
    pub trained: usize,
}

impl Rope {
    /// The `dim / 2` frequencies `base^(-2i/dim)` for any base, in radians per position.
    pub fn inv_freq(&self, base: f64) -> Vec<f64> {
        let d = self.dim as f64;
        (0..self.dim / 2)
            .map(|i| base.powf(-2.0 * i as f64 / d))
            .collect()
    }

    /// The base `b * alpha^(d/(d-2))`, which divides the lowest of the frequencies by exactly
    /// `alpha` and leaves the highest alone (YaRN, arXiv 2309.00071, definition 1).
    ///
    /// For `dim` 2 the exponent is infinite, and so is the base for `alpha > 1`: the only
    /// frequency, 1, still comes out.
    pub(crate) fn ntk_base(&self, alpha: f64) -> f64 {
        let d = self.dim as f64;
        self.base * alpha.powf(d / (d - 2.0))
    }

    /// `max(1, n / L)`, the scale of the methods that follow the length.
    pub(crate) fn dynamic_scale(&self, n: usize) -> f64 {
        (n as f64 / self.trained as f64).max(1.0)
    }
}

/// Lengths, in tokens, of the sequence (or of what a windowed layer sees of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Tokens of the whole pass: prompt and everything generated.
    pub total: usize,
    /// Tokens of the first forward call; at least 1, at most `total`.
    pub prefill: usize,
}

impl Length {
    /// `n` tokens in one forward call.
    pub fn whole(n: usize) -> Self {
        Length {
            total: n,
            prefill: n,
        }
    }
}

/// The frequencies and the temperature of a rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// `dim / 2` angular frequencies, in radians per position, highest first.
    pub inv_freq: Vec<f64>,
    /// Multiplies cos and sin of both queries and keys, so the logits get its square.
    pub mscale: f64,
}

/// A rule that chooses the rotary frequencies; the entries of [`METHODS`].
pub trait FrequencyMethod: Variant {
    /// Replaces options that name a file by the file's content. Most methods have none.
    ///
    /// # Errors
    /// The file cannot be read, lacks what is needed, or contradicts the other options.
    fn resolve(&self, _options: &mut Options) -> Result<(), OptionError> {
        Ok(())
    }

    /// The frequencies and temperature for a pass of this length.
    ///
    /// # Errors
    /// An option is unknown, missing, out of range or contradicts another; `rope` or `length` is
    /// impossible.
    fn spectrum(
        &self,
        rope: &Rope,
        length: Length,
        options: &Options,
    ) -> Result<Spectrum, OptionError>;
}

impl Axis for dyn FrequencyMethod {
    const DEFAULT: &'static str = "none";

    fn registry() -> &'static [&'static Self] {
        METHODS
    }

    fn resolve(&self, options: &mut Options) -> Result<(), OptionError> {
        FrequencyMethod::resolve(self, options)
    }
}

impl Choice<dyn FrequencyMethod> {
    /// The spectrum for a model and lengths: `rope.dim / 2` frequencies, in radians per position.
    ///
    /// # Errors
    /// The method is unknown, its options are wrong or not resolved, or `rope` or `length` is
    /// impossible.
    pub fn spectrum(&self, rope: &Rope, length: Length) -> Result<Spectrum, OptionError> {
        self.variant()?.spectrum(rope, length, self.options())
    }
}

/// Refuses a geometry or lengths for which no formula is defined.
///
/// # Errors
/// [`OptionError::Geometry`].
pub fn check(rope: &Rope, length: Length) -> Result<(), OptionError> {
    let wrong = |key, value: String, rule: String| Err(OptionError::Geometry { key, value, rule });
    if rope.dim < 2 || rope.dim % 2 == 1 {
        return wrong("dim", rope.dim.to_string(), "even and at least 2".into());
    }
    if !(rope.base > 1.0 && rope.base.is_finite()) {
        return wrong("base", rope.base.to_string(), "finite and above 1".into());
    }
    if rope.trained < 2 {
        return wrong("trained", rope.trained.to_string(), "at least 2".into());
    }
    if length.prefill < 1 || length.prefill > length.total {
        return wrong(
            "prefill",
            length.prefill.to_string(),
            format!("at least 1 and at most total = {}", length.total),
        );
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub fn rope(base: f64, trained: usize) -> Rope {
        Rope {
            dim: 128,
            base,
            trained,
        }
    }

    pub fn whole(n: usize) -> Length {
        Length::whole(n)
    }

    pub fn options(json: serde_json::Value) -> Options {
        json.as_object().expect("options are a JSON object").clone()
    }

    /// Absolute comparison; NaN is never close.
    pub fn assert_close(found: f64, expected: f64, tolerance: f64) {
        assert!(
            (found - expected).abs() <= tolerance,
            "{found} is not within {tolerance} of {expected}"
        );
    }

    /// The base that a geometric spectrum has, read off its lowest frequency.
    pub fn base_of(spectrum: &Spectrum) -> f64 {
        let half = spectrum.inv_freq.len() as f64;
        spectrum.inv_freq[spectrum.inv_freq.len() - 1].powf(-half / (half - 1.0))
    }
}
