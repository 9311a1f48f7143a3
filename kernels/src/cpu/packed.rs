//! Rows of a packed matrix in f32.

use std::ops::Range;

use pulp::Arch;

use super::{Weight, vector};

/// The parts of a [`PackedWeight`](crate::PackedWeight), in place.
pub struct Packed<'a> {
    /// `[o, inputs * bits / 32]`.
    pub words: &'a [i32],
    /// `[o, groups * bits / 32]`, rounded up.
    pub zeros: &'a [i32],
    /// `[o, groups]`.
    pub scales: &'a Weight<'a>,
    pub bits: usize,
    pub group: usize,
    pub inputs: usize,
}

impl<'a> Packed<'a> {
    /// Words of a row.
    pub fn width(&self) -> usize {
        self.inputs * self.bits / 32
    }

    pub fn outputs(&self) -> usize {
        self.words.len() / self.width()
    }

    /// Words of row `o`.
    pub fn row(&self, o: usize) -> &'a [i32] {
        &self.words[o * self.width()..][..self.width()]
    }

    /// Zero of group `g` of row `o`.
    pub fn zero(&self, o: usize, g: usize) -> f32 {
        let width = (self.scales.inputs * self.bits).div_ceil(32);
        let word = self.zeros[o * width + g * self.bits / 32] as u32;
        (word >> (g * self.bits % 32) & ((1 << self.bits) - 1)) as f32
    }

    /// Rows `outputs` in f32, in the front of `buffer`.
    pub fn rows<'b>(&self, outputs: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let arch = Arch::new();
        let len = outputs.len() * self.inputs;
        buffer.resize(len.max(buffer.len()), 0.0);
        let mut widened = Vec::new();
        let scales = self.scales.rows(outputs.clone(), &mut widened);
        let rows = buffer[..len].chunks_exact_mut(self.inputs);
        let scales = scales.chunks_exact(self.scales.inputs);
        for ((o, row), scales) in outputs.zip(rows).zip(scales) {
            match self.bits {
                4 => vector::unpack_4(arch, self.row(o), row),
                _ => vector::unpack_8(arch, self.row(o), row),
            }
            for ((g, values), &scale) in row.chunks_mut(self.group).enumerate().zip(scales) {
                vector::shift_scale(arch, values, self.zero(o, g), scale);
            }
        }
        &buffer[..len]
    }
}
