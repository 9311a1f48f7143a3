//! Keys and values as a cache holds them: in a narrow type, keys not yet rotated.

use std::ops::Range;

use half::{bf16, f16};
use pulp::Arch;

use super::{DType, Primitive, Strided, vector};

/// Keys and values of a cache, and the tables that rotate its keys.
pub struct Cached<'a> {
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    /// `[rows, d/2]`, at least as many rows as there are keys.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

/// `[b, h, m, d]` in the type of the cache.
pub enum Rows<'a> {
    F32(Strided<'a>),
    Bf16(Strided<'a, bf16>),
    F16(Strided<'a, f16>),
    /// Whole numbers `q`, and `[b, h, m, 2]` with the slope and the offset of each row: `slope * q + offset`.
    Bits8(Strided<'a, u8>, Strided<'a>),
}

impl Cached<'_> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match &self.k {
            Rows::F32(rows) => rows.shape[2],
            Rows::Bf16(rows) => rows.shape[2],
            Rows::F16(rows) => rows.shape[2],
            Rows::Bits8(rows, _) => rows.shape[2],
        }
    }

    /// Rotated keys and values of one batch and head in f32, `[keys.len(), d]` each.
    pub fn load(
        &self,
        arch: Arch,
        [batch, head]: [usize; 2],
        keys: Range<usize>,
        k: &mut Vec<f32>,
        v: &mut Vec<f32>,
    ) {
        let half = self.k.width() / 2;
        self.k.load(arch, [batch, head], keys.clone(), k);
        for (row, i) in k.chunks_exact_mut(2 * half).zip(keys.clone()) {
            let table = i * half..(i + 1) * half;
            vector::rotate_in_place(arch, row, &self.cos[table.clone()], &self.sin[table]);
        }
        self.v.load(arch, [batch, head], keys, v);
    }
}

impl<'a> Rows<'a> {
    /// Rows of a float tensor.
    pub fn of_floats(x: &'a Primitive) -> Self {
        match x.dtype() {
            DType::F32 => Rows::F32(Strided::of(x, x.storage())),
            DType::BF16 => Rows::Bf16(Strided::of(x, x.storage())),
            DType::F16 => Rows::F16(Strided::of(x, x.storage())),
            dtype => panic!("a cache is f32, bf16 or f16; got {dtype:?}"),
        }
    }

    fn width(&self) -> usize {
        match self {
            Rows::F32(rows) => rows.shape[3],
            Rows::Bf16(rows) => rows.shape[3],
            Rows::F16(rows) => rows.shape[3],
            Rows::Bits8(rows, _) => rows.shape[3],
        }
    }

    fn load(&self, arch: Arch, [b, h]: [usize; 2], keys: Range<usize>, out: &mut Vec<f32>) {
        let d = self.width();
        out.resize(keys.len() * d, 0.0);
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
