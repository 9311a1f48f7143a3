//! Weights of linear layers, in any type in which they are stored.

use std::ops::Range;

use burn::tensor::DType;
use half::{bf16, f16};
use pulp::Arch;

use super::vector;
use super::views::Primitive;

/// A weight `[o, i]` in the type in which it is stored.
pub struct Weight<'a> {
    pub values: WeightValues<'a>,
    pub inputs: usize,
}

pub enum WeightValues<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Packed(PackedRows<'a>),
}

impl<'a> Weight<'a> {
    /// A float weight.
    pub fn new(x: &'a Primitive, inputs: usize) -> Self {
        let values = match x.dtype() {
            DType::F32 => x.as_slice().map(WeightValues::F32),
            DType::BF16 => x.as_slice().map(WeightValues::Bf16),
            DType::F16 => x.as_slice().map(WeightValues::F16),
            _ => None,
        };
        Weight {
            values: values.unwrap_or_else(|| panic!("a weight is f32, bf16 or f16; got {x:?}")),
            inputs,
        }
    }

    pub fn outputs(&self) -> usize {
        let len = match &self.values {
            WeightValues::Packed(packed) => return packed.outputs(),
            WeightValues::F32(values) => values.len(),
            WeightValues::Bf16(values) => values.len(),
            WeightValues::F16(values) => values.len(),
        };
        len / self.inputs
    }

    /// Rows `outputs` in f32; `buffer` holds them when they have to be widened.
    pub fn rows<'b>(&'b self, outputs: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let range = outputs.start * self.inputs..outputs.end * self.inputs;
        match &self.values {
            WeightValues::Packed(packed) => packed.rows(outputs, buffer),
            WeightValues::F32(values) => &values[range],
            WeightValues::Bf16(values) => vector::widen_bf16(&values[range], buffer),
            WeightValues::F16(values) => vector::widen_f16(&values[range], buffer),
        }
    }
}

/// The parts of a [`PackedWeight`](crate::PackedWeight), in place.
pub struct PackedRows<'a> {
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

impl PackedRows<'_> {
    /// Words of a row.
    pub fn width(&self) -> usize {
        self.inputs * self.bits / 32
    }

    pub fn outputs(&self) -> usize {
        self.words.len() / self.width()
    }

    /// Zeros of rows `outputs`, in the front of `buffer`. Rows are whole words, so a row may have
    /// more zeros than groups.
    pub fn zeros<'b>(&self, outputs: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b mut [f32] {
        let width = (self.scales.inputs * self.bits).div_ceil(32);
        let words = &self.zeros[outputs.start * width..outputs.end * width];
        self.unpack(words, buffer)
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
        let words = &self.words[outputs.start * width..outputs.end * width];
        let rows = self.unpack(words, buffer);
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
