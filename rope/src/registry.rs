//! Variants, their registries and their documentation, which the six axes of Longspan share.
//!
//! An axis is a trait over [`Variant`], a folder with one file per variant, and a [`registry!`]
//! line that lists them. A config selects a variant by its name, with options next to it.

use crate::{OptionError, Options};

/// One option of a variant, for help texts and generated docs.
pub struct OptionDoc {
    /// The key in TOML.
    pub name: &'static str,
    /// The default as a TOML literal, or `required`, or `optional`.
    pub default: &'static str,
    /// What the option does.
    pub meaning: &'static str,
}

/// The name and the documentation of a variant, of any axis.
///
/// Only the name is required: summary, source and options are what `longspan list` and the
/// generated docs show, so registered variants have them all.
pub trait Variant: Send + Sync {
    /// The `kind` that selects the variant in a config.
    fn name(&self) -> &'static str;

    /// One line: what it does.
    fn summary(&self) -> &'static str {
        ""
    }

    /// The paper or file that defines it.
    fn source(&self) -> &'static str {
        ""
    }

    /// Every option it takes; any other is refused.
    fn options(&self) -> &'static [OptionDoc] {
        &[]
    }

    /// For a variant outside the registry that holds its settings in fields: those settings, as
    /// they should enter the keys of records.
    fn settings(&self) -> Options {
        Options::new()
    }
}

/// An axis, implemented by the trait object of its trait.
pub trait Axis: Variant + 'static {
    /// The variant that a config gets when it names none.
    const DEFAULT: &'static str;

    /// Every variant, in the order in which help texts list them.
    fn registry() -> &'static [&'static Self];

    /// Replaces options that name a file by the file's content. Most variants have none.
    ///
    /// # Errors
    /// The file cannot be read, lacks what is needed, or contradicts the other options.
    fn resolve(&self, _options: &mut Options) -> Result<(), OptionError> {
        Ok(())
    }
}

/// The registered variant called `name`.
///
/// # Errors
/// [`OptionError::Unknown`], which lists the known names.
pub fn find<A: Axis + ?Sized>(name: &str) -> Result<&'static A, OptionError> {
    let registry = A::registry();
    registry
        .iter()
        .copied()
        .find(|variant| variant.name() == name)
        .ok_or_else(|| OptionError::Unknown {
            kind: name.to_owned(),
            known: registry.iter().map(|variant| variant.name()).collect(),
        })
}

/// Declares the module of each variant and the registry that lists them.
///
/// `registry! { /// Docs. pub static LIST: [dyn Trait] = Unit; a, b }` declares `mod a; mod b;`,
/// each of which exports a unit struct `Unit` that implements `Trait`.
#[macro_export]
macro_rules! registry {
    ($(#[$docs:meta])* pub static $list:ident: [$variant:ty] = $unit:ident; $($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        $(#[$docs])*
        pub static $list: &[&$variant] = &[$(&$name::$unit),*];
    };
}
