//! Loading of queries, keys and values into shared memory.

use cubecl::prelude::*;

/// Copies rows `first..first + rows` of one head of `x` to shared memory, zeros for those from
/// `end` on. Neighbouring units copy neighbouring components.
#[cube]
pub fn load_rows<E: Float>(
    x: &Tensor<E>,
    head_start: usize,
    first: usize,
    end: usize,
    to: &mut Shared<[E]>,
    #[comptime] rows: usize,
    #[comptime] d: usize,
    #[comptime] row_len: usize,
    #[comptime] units: usize,
) {
    for e in range_stepped(UNIT_POS as usize, rows * d, units) {
        let (i, c) = (e / d, e % d);
        let mut value = E::from_int(0);
        if first + i < end {
            value = x[head_start + (first + i) * x.stride(2) + c * x.stride(3)];
        }
        to[i * row_len + c] = value;
    }
}
