//! Sums and maxima over the units of a cube, for kernels that give a cube to each row.

use cubecl::client::Client;
use cubecl::prelude::*;

/// Sum of every unit's `value`, which all units get. `shared` holds one value a unit; `units` is a
/// power of two.
#[cube]
pub fn cube_sum(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if (UNIT_POS as usize) < half {
            shared[UNIT_POS as usize] += shared[UNIT_POS as usize + half];
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    // `shared` may be used again.
    sync_cube();
    sum
}

/// Largest of every unit's `value`; otherwise as [`cube_sum`].
#[cube]
pub fn cube_max(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if (UNIT_POS as usize) < half {
            let other = shared[UNIT_POS as usize + half];
            shared[UNIT_POS as usize] = max(shared[UNIT_POS as usize], other);
        }
        sync_cube();
        half /= 2;
    }
    let largest = shared[0];
    sync_cube();
    largest
}

/// Units of a cube that works on a row of `width` values: a power of two.
pub fn row_units(client: &Client, width: usize) -> usize {
    let limit = client.properties().hardware.max_units_per_cube as usize;
    let units = width.next_power_of_two().clamp(32, 256);
    // The largest power of two that is not above the limit.
    units.min((limit / 2 + 1).next_power_of_two())
}

/// One cube a row, on a grid that stays below WebGPU's 65,535 a side; cubes past `rows` must end at
/// once.
pub fn row_cubes(rows: usize) -> CubeCount {
    let x = rows.min(32_768);
    CubeCount::Static(x as u32, rows.div_ceil(x) as u32, 1)
}
