//! What a query sees, at which relative position, and how strongly: the attention **plan**.
//!
//! A [`Method`] (the `[[method]]` table of a config) is a pure function of the model's geometry, the
//! length of the pass and the layer. It yields one [`LayerPlan`] a layer: bands of keys with their
//! positions and frequencies, and a scale for each query. Everything here is plain numbers; the
//! crate `longspan-kernels` executes plans on tensors, and [`oracle`] executes any plan slowly in
//! float64, which is what the fast paths are tested against.
//!
//! ```
//! use longspan_attention::{Method, Model};
//! use longspan_rope::{Length, Rope};
//!
//! let method = Method::named("plain");
//! let model = Model { rope: Rope { dim: 16, base: 1e4, trained: 64 }, layers: 4 };
//! let plans = method.plan(&model, Length { total: 100, prefill: 100 }).unwrap();
//! assert_eq!(plans.len(), 4);
//! assert_eq!(plans[0].bands[0].keys[9], 0..10); // query 9 sees itself and the nine before it
//! ```

mod method;
pub mod oracle;
mod plan;

pub use method::{Alpha, LogN, LogNLength, Method, Window, WindowLayers, WindowSize};
pub use plan::{Band, LayerPlan, Model, PlanError};
