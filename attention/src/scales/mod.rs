//! Query scales: a factor on each query, which sharpens or softens its attention with length.
//!
//! A scale is one file that exports `Scale` and its name in the registry below; `tests/registry.rs`
//! then requires its goldens.

use longspan_rope::{Axis, OptionError, Options, Variant, registry};

use crate::Layer;

registry! {
    /// Every query scale, in the order in which help texts list them.
    pub static SCALES: [dyn QueryScale] = Scale;
    none, logn
}

/// A factor on each query of a layer, applied after rotation.
pub trait QueryScale: Variant {
    /// The factors of `layer.queries`; `seen` holds the number of keys that each of them sees.
    ///
    /// # Errors
    /// An option is unknown, missing or out of range.
    fn factors(
        &self,
        layer: &Layer,
        seen: &[usize],
        options: &Options,
    ) -> Result<Vec<f64>, OptionError>;
}

impl Axis for dyn QueryScale {
    const DEFAULT: &'static str = "none";

    fn registry() -> &'static [&'static Self] {
        SCALES
    }
}
