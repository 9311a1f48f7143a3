//! Sizes of the tiles of attention.

use burn::tensor::DType;
use cubecl::client::Client;

use crate::error::KernelError;

/// Components of a head that there are kernels for; multiples of every tile's `units_x`.
pub const HEAD_SIZES: [usize; 7] = [16, 32, 64, 80, 96, 128, 256];
/// Queries up to which the keys are split over several cubes, as decoding needs it.
pub const SPLIT_QUERIES: usize = 4;
/// Shared memory that a tile takes at most, even where the device has more.
pub const SHARED_BYTES: usize = 48 << 10;

/// How a cube divides its work; see the top of `units.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Units side by side along keys and components.
    pub units_x: usize,
    /// Units along queries.
    pub units_y: usize,
    /// Queries of one unit.
    pub rows: usize,
    /// Keys of one unit.
    pub columns: usize,
}

const fn tile(units_x: usize, units_y: usize, rows: usize, columns: usize) -> Tile {
    Tile {
        units_x,
        units_y,
        rows,
        columns,
    }
}

const PREFILL: [Tile; 6] = [
    tile(16, 16, 4, 4),
    tile(16, 16, 4, 2),
    tile(16, 16, 2, 2),
    tile(16, 16, 2, 1),
    tile(8, 8, 2, 1),
    tile(8, 8, 1, 1),
];
const DECODE: [Tile; 4] = [
    tile(16, 4, 1, 4),
    tile(16, 4, 1, 2),
    tile(16, 4, 1, 1),
    tile(8, 4, 1, 1),
];

impl Tile {
    /// Queries of a block.
    pub const fn queries(&self) -> usize {
        self.units_y * self.rows
    }

    /// Keys of a tile.
    pub const fn keys(&self) -> usize {
        self.units_x * self.columns
    }

    /// Bytes of shared memory, for heads of `d` components of `size` bytes.
    fn bytes(&self, d: usize, size: usize) -> usize {
        (self.queries() + self.keys()) * (d * size + 4) + self.queries() * (self.keys() + 1) * 4
    }

    /// The tile for `n` queries on a device.
    ///
    /// # Errors
    /// A head size without a kernel; a device that no tile fits.
    pub fn choose(client: &Client, n: usize, d: usize, dtype: DType) -> Result<Tile, KernelError> {
        if !HEAD_SIZES.contains(&d) {
            return Err(KernelError::HeadSize {
                d,
                known: &HEAD_SIZES,
            });
        }
        let tiles: &[Tile] = if n <= SPLIT_QUERIES {
            &DECODE
        } else {
            &PREFILL
        };
        let hardware = &client.properties().hardware;
        let available = hardware.max_shared_memory_size.min(SHARED_BYTES);
        let units = hardware.max_units_per_cube as usize;
        let fits = |tile: &&Tile| {
            tile.bytes(d, dtype.size()) <= available && tile.units_x * tile.units_y <= units
        };
        let smallest = tiles[tiles.len() - 1];
        tiles
            .iter()
            .find(fits)
            .copied()
            .ok_or(KernelError::SharedMemory {
                needed: smallest.bytes(d, dtype.size()),
                available,
            })
    }
}
