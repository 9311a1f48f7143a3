//! Keys and values as a pass has made them or as a cache holds them: of any type, keys not yet
//! rotated.

use std::ops::Range;

use burn::tensor::DType;
use half::{bf16, f16};
use pulp::Arch;

use crate::cpu::vector;
use crate::cpu::views::{Primitive, Strided};

/// Rows of cos and sin `[rows, d/2]` that rotate queries or keys.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

impl Tables<'_> {
    /// Rotates row `i`.
    pub fn rotate(&self, arch: Arch, i: usize, row: &mut [f32]) {
        let half = row.len() / 2;
        let table = i * half..(i + 1) * half;
        vector::rotate_in_place(arch, row, &self.cos[table.clone()], &self.sin[table]);
    }
}

/// Keys and values of all heads, and the tables that rotate the keys as they are loaded, if any.
pub struct KeyValues<'a> {
    pub k: StoredRows<'a>,
    pub v: StoredRows<'a>,
    pub tables: Option<Tables<'a>>,
}

/// `[b, h, m, d]` in the type in which it is stored.
pub enum StoredRows<'a> {
    F32(Strided<'a>),
    Bf16(Strided<'a, bf16>),
    F16(Strided<'a, f16>),
    /// Words of four whole numbers `q` `[b, h, m, d/4]`, and `[b, h, m, 2]` with the slope and the
    /// offset of each row: `slope * q + offset`.
    Bits8(Strided<'a, i32>, Strided<'a>),
}

impl KeyValues<'_> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match &self.k {
            StoredRows::F32(rows) => rows.shape[2],
            StoredRows::Bf16(rows) => rows.shape[2],
            StoredRows::F16(rows) => rows.shape[2],
            StoredRows::Bits8(rows, _) => rows.shape[2],
        }
    }

    /// Writes the rows `keys` of a batch and head in f32, keys rotated: `[keys.len(), d]` each.
    pub fn load(
        &self,
        arch: Arch,
        head: [usize; 2],
        keys: Range<usize>,
        k: &mut [f32],
        v: &mut [f32],
    ) {
        let d = k.len() / keys.len();
        self.k.load(arch, head, keys.clone(), d, k);
        if let Some(tables) = self.tables {
            for (row, i) in k.chunks_exact_mut(d).zip(keys.clone()) {
                tables.rotate(arch, i, row);
            }
        }
        self.v.load(arch, head, keys, d, v);
    }
}

impl<'a> StoredRows<'a> {
    /// Rows of a float tensor.
    pub fn of_floats(x: &'a Primitive) -> Self {
        match x.dtype() {
            DType::F32 => StoredRows::F32(Strided::of(x, x.storage())),
            DType::BF16 => StoredRows::Bf16(Strided::of(x, x.storage())),
            DType::F16 => StoredRows::F16(Strided::of(x, x.storage())),
            dtype => panic!("keys and values are f32, bf16 or f16; got {dtype:?}"),
        }
    }

    fn load(&self, arch: Arch, [b, h]: [usize; 2], keys: Range<usize>, d: usize, out: &mut [f32]) {
        for (out, i) in out.chunks_exact_mut(d).zip(keys) {
            match self {
                StoredRows::F32(rows) => out.copy_from_slice(rows.row(b, h, i)),
                StoredRows::Bf16(rows) => vector::bf16_to_f32(arch, rows.row(b, h, i), out),
                StoredRows::F16(rows) => vector::f16_to_f32(rows.row(b, h, i), out),
                StoredRows::Bits8(rows, lines) => {
                    let line = lines.row(b, h, i);
                    vector::from_8bit(arch, rows.row(b, h, i), line[0], line[1], out);
                }
            }
        }
    }
}
