//! Keys and values as a pass has made them or a cache holds them: in any type, keys not yet turned.

use std::ops::Range;

use half::{bf16, f16};
use pulp::Arch;

use super::attention::{KeyRows, Tables};
use super::{DType, Primitive, Strided, vector};

/// Keys and values, and the tables that turn the keys where they are not yet turned.
pub struct Held<'a> {
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub tables: Option<Tables<'a>>,
}

/// `[b, h, m, d]` in the type in which they are held.
pub enum Rows<'a> {
    F32(Strided<'a>),
    Bf16(Strided<'a, bf16>),
    F16(Strided<'a, f16>),
    /// Words of four whole numbers `q` `[b, h, m, d/4]`, and `[b, h, m, 2]` with the slope and the offset of each row:
    /// `slope * q + offset`.
    Bits8(Strided<'a, i32>, Strided<'a>),
}

impl Held<'_> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match &self.k {
            Rows::F32(rows) => rows.shape[2],
            Rows::Bf16(rows) => rows.shape[2],
            Rows::F16(rows) => rows.shape[2],
            Rows::Bits8(rows, _) => rows.shape[2],
        }
    }
}

impl KeyRows for Held<'_> {
    fn load(&self, arch: Arch, head: [usize; 2], keys: Range<usize>, k: &mut [f32], v: &mut [f32]) {
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

impl<'a> Rows<'a> {
    /// Rows of a float tensor.
    pub fn of_floats(x: &'a Primitive) -> Self {
        match x.dtype() {
            DType::F32 => Rows::F32(Strided::of(x, x.storage())),
            DType::BF16 => Rows::Bf16(Strided::of(x, x.storage())),
            DType::F16 => Rows::F16(Strided::of(x, x.storage())),
            dtype => panic!("keys and values are f32, bf16 or f16; got {dtype:?}"),
        }
    }

    fn load(&self, arch: Arch, [b, h]: [usize; 2], keys: Range<usize>, d: usize, out: &mut [f32]) {
        for (out, i) in out.chunks_exact_mut(d).zip(keys) {
            match self {
                Rows::F32(rows) => out.copy_from_slice(rows.row(b, h, i)),
                Rows::Bf16(rows) => vector::bf16_to_f32(arch, rows.row(b, h, i), out),
                Rows::F16(rows) => vector::f16_to_f32(rows.row(b, h, i), out),
                Rows::Bits8(rows, lines) => {
                    let line = lines.row(b, h, i);
                    vector::from_8bit(arch, rows.row(b, h, i), line[0], line[1], out);
                }
            }
        }
    }
}
