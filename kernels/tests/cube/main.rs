//! Every GPU kernel against loops in float64, on the first GPU of this build's kinds. With wgpu, on
//! a machine without a GPU, that is Mesa's software Vulkan.
//!
//! A kernel may be off by twice the error of the slow twin in the same type, plus twice what adding
//! and subtracting 0.3 costs in that type. In attention it may also be off by the rounding of f32
//! logits of their size, since the twin adds up their products in another order. A device or a type
//! that is missing is a skip, printed with the number of checks; with `LONGSPAN_GPU_TESTS=strict` a
//! missing device fails.
#![cfg(feature = "cube")]

mod attention;
mod bands;
mod device;
mod errors;
#[path = "../host/mod.rs"]
mod host;
#[path = "../problems/mod.rs"]
mod problems;
mod products;
mod rows;
