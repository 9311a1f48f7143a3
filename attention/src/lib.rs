//! The attention **plan**: which keys a query sees, at which relative positions, how strongly.
//!
//! A [`Method`] (a `[[method]]` table of a config) chooses a frequency method, an attention pattern
//! and a query scale. It is a pure function of the model's geometry, the length of the pass and the
//! layer, and yields one [`LayerPlan`] a layer: bands of keys with their positions and frequencies,
//! and a scale for each query. Everything here is plain numbers; the crate `longspan-kernels`
//! executes plans on tensors, and [`oracle`] executes any plan slowly in float64, which is what the
//! fast paths are tested against.
//!
//! ```
//! use longspan_attention::{Method, Model};
//! use longspan_rope::{Length, Rope};
//!
//! let method = Method::named("plain");
//! let model = Model { rope: Rope { dim: 16, base: 1e4, trained: 64 }, layers: 4 };
//! let plans = method.plan(&model, Length::whole(100)).unwrap();
//! assert_eq!((plans.len(), plans.distinct().len()), (4, 1));
//! assert_eq!(plans[0].bands[0].keys[9], 0..10); // query 9 sees itself and the nine before it
//! ```

mod method;
mod model;
pub mod oracle;
pub mod patterns;
mod plan;
pub mod scales;
mod table;

pub use method::{Method, PlanError};
pub use model::{Layer, Model};
pub use patterns::{AttentionPattern, BandKeys, Kept, PATTERNS};
pub use plan::{Band, LayerPlan, Plans};
pub use scales::{QueryScale, SCALES};
