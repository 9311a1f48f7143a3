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

impl Packed<'_> {
    /// Words of a row.
    pub fn width(&self) -> usize {
        self.inputs * self.bits / 32
    }

    pub fn outputs(&self) -> usize {
        self.words.len() / self.width()
    }

    /// Zeros of rows `outputs`, in the front of `buffer`; a row may have more of them than groups.
    pub fn zeros<'b>(&self, outputs: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b mut [f32] {
        let width = (self.scales.inputs * self.bits).div_ceil(32);
        self.unpack(
            &self.zeros[outputs.start * width..outputs.end * width],
            buffer,
        )
    }

    /// Rows `outputs` in f32, in the front of `buffer`.
    pub fn rows<'b>(&self, outputs: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let arch = Arch::new();
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        let scales = self.scales.rows(outputs.clone(), &mut scales);
        let zeros = self.zeros(outputs.clone(), &mut zeros);
        let widths = [self.scales.inputs, zeros.len() / outputs.len()];
        let factors = scales
            .chunks_exact(widths[0])
            .zip(zeros.chunks_exact(widths[1]));
        let width = self.width();
        let rows = self.unpack(
            &self.words[outputs.start * width..outputs.end * width],
            buffer,
        );
        for (row, (scales, zeros)) in rows.chunks_exact_mut(self.inputs).zip(factors) {
            let groups = row.chunks_mut(self.group);
            for (values, (scale, zero)) in groups.zip(scales.iter().zip(zeros)) {
                vector::shift_scale(arch, values, *zero, *scale);
            }
        }
        rows
    }

    /// Values of words, in the front of `buffer`.
    fn unpack<'b>(&self, words: &[i32], buffer: &'b mut Vec<f32>) -> &'b mut [f32] {
        let len = words.len() * 32 / self.bits;
        buffer.resize(len.max(buffer.len()), 0.0);
        let out = &mut buffer[..len];
        match self.bits {
            4 => vector::unpack_4(Arch::new(), words, out),
            _ => vector::unpack_8(Arch::new(), words, out),
        }
        out
    }
}
