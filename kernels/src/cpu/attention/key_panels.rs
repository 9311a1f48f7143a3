//! Keys and values of all heads as panels for matrix products.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::keys::KeyValues;
use crate::cpu::output::{OutputBlock, Unwritten};
use crate::cpu::panels::{self, Matrix, Panels};
use crate::cpu::scratch::with_scratch;

/// Keys of a tile; whole panels for every instruction set. With 128 values a head, keys and values
/// of a tile take half of a second-level cache of 512 KiB.
pub const TILE_KEYS: usize = 256;

/// Rotated keys `[len, d]` transposed, and values `[len, d]` as they are, of each head. Rows and
/// columns are filled up with zeros to whole panels.
pub struct KeyPanels {
    /// Of each head the panels of its keys, `[d, width]` each.
    k: Vec<f32>,
    /// Of each head the panels of its values, `[len, width]` each.
    v: Vec<f32>,
    /// Columns of a panel.
    pub width: usize,
    pub d: usize,
    /// Columns of values, filled up.
    pub columns: usize,
    heads: usize,
    /// The first key that is here, a multiple of [`TILE_KEYS`].
    first: usize,
    /// Keys, filled up.
    len: usize,
}

impl KeyPanels {
    /// Packs the tiles that hold the keys in `seen`, for heads `[b, h]` of `d` components.
    pub fn new(arch: Arch, keys: &KeyValues, [b, h, d]: [usize; 3], seen: Range<usize>) -> Self {
        let width = panels::panel_width(arch);
        let columns = d.next_multiple_of(width);
        let first = seen.start / TILE_KEYS * TILE_KEYS;
        let end = seen.end.next_multiple_of(TILE_KEYS).min(keys.len());
        let len = end.saturating_sub(first).next_multiple_of(width);
        let mut k = Unwritten::new(b * h * len * d);
        let mut v = Unwritten::new(b * h * len * columns);
        let k_grid = OutputBlock::new(k.values(), len * d).grid([1, TILE_KEYS * d]);
        let v_grid = OutputBlock::new(v.values(), len * width);
        let v_grid = v_grid.grid([columns / width, TILE_KEYS * width]);
        let tiles = len.div_ceil(TILE_KEYS);
        (0..b * h * tiles).into_par_iter().for_each(|task| {
            let (head, tile) = (task / tiles, task % tiles);
            let start = first + tile * TILE_KEYS;
            let tile_keys = start..(start + TILE_KEYS).min(end);
            let count = tile_keys.len();
            let [mut k_panels, mut v_panels] = [&k_grid, &v_grid].map(|x| x.take([head, tile]));
            with_scratch(2 * TILE_KEYS * d, |scratch| {
                let (k, v) = scratch.split_at_mut(TILE_KEYS * d);
                let (k, v) = (&mut k[..count * d], &mut v[..count * d]);
                keys.load(arch, [head / h, head % h], tile_keys, k, v);
                let panels = k_panels.row(0).chunks_exact_mut(width * d);
                for (panel, k) in panels.zip(k.chunks(width * d)) {
                    let columns = Matrix {
                        values: k,
                        stride: d,
                    };
                    panels::pack_columns(columns, k.len() / d, width, panel);
                }
                let rows = Matrix {
                    values: v,
                    stride: d,
                };
                for i in 0..columns / width {
                    let (panel, rest) = v_panels.row(i).split_at_mut(count * width);
                    let columns = i * width..d.min((i + 1) * width);
                    panels::pack_rows(rows, columns, width, panel);
                    rest.fill(std::mem::MaybeUninit::new(0.0));
                }
            });
        });
        // SAFETY: the tiles of all heads are the whole grids. A tile of keys is whole panels, each
        // of which `pack_columns` writes; a row of a tile of values is `count` rows of a panel,
        // which `pack_rows` writes, and the rest, zero.
        let (k, v) = unsafe { (k.assume_written(), v.assume_written()) };
        KeyPanels {
            k,
            v,
            width,
            d,
            columns,
            heads: h,
            first,
            len,
        }
    }

    /// Panels of the keys from one on, the first of a panel.
    pub fn keys(&self, [batch, head]: [usize; 2], key: usize) -> Panels<'_> {
        let row = (batch * self.heads + head) * self.len + key - self.first;
        Panels {
            values: &self.k[row * self.d..],
            stride: self.width * self.d,
        }
    }

    /// Panels of the values from one on.
    pub fn values(&self, [batch, head]: [usize; 2], key: usize) -> Panels<'_> {
        let head = (batch * self.heads + head) * self.len * self.columns;
        Panels {
            values: &self.v[head + (key - self.first) * self.width..],
            stride: self.len * self.width,
        }
    }
}
