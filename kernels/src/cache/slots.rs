//! Keys or values of one layer in the type of the cache.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor};

use super::types::CacheType;

/// `[1, h, capacity, d]`.
#[allow(clippy::large_enum_variant)] // two for each layer
pub enum Slots {
    Float(Tensor<4>),
    /// Words of four numbers `[1, h, capacity, d/4]`, and slopes and offsets `[1, h, capacity, 2]`.
    Bits8(Tensor<4, Int>, Tensor<4>),
}

impl Slots {
    pub fn new(shape: [usize; 4], kind: CacheType, device: &Device) -> Self {
        let floats = |dtype| Slots::Float(Tensor::zeros(shape, (device, dtype)));
        match kind {
            CacheType::F32 => floats(DType::F32),
            CacheType::Bf16 => floats(DType::BF16),
            CacheType::F16 => floats(DType::F16),
            CacheType::Int8 => {
                let [b, h, capacity, d] = shape;
                Slots::Bits8(
                    Tensor::zeros([b, h, capacity, d / 4], (device, DType::I32)),
                    Tensor::zeros([b, h, capacity, 2], (device, DType::F32)),
                )
            }
        }
    }

    pub fn write(&mut self, slots: Range<usize>, x: Tensor<4>) {
        match self {
            Slots::Float(held) => {
                let dtype = held.dtype();
                assign(held, slots, x.cast(dtype));
            }
            Slots::Bits8(held, lines) => {
                let (words, line) = to_8bit(x);
                let [_, h, _, width] = held.dims();
                let ranges = [0..1, 0..h, slots.clone(), 0..width];
                *held = take_int(held).slice_assign(ranges, words);
                assign(lines, slots, line);
            }
        }
    }

    /// Moves the slots `from` towards the front, to those from `to` on.
    pub fn shift(&mut self, from: Range<usize>, to: usize) {
        if from.is_empty() {
            return;
        }
        let slots = to..to + from.len();
        match self {
            Slots::Float(held) => {
                let stay = held.clone().narrow(2, from.start, from.len());
                assign(held, slots, stay);
            }
            Slots::Bits8(held, lines) => {
                let stay = held.clone().narrow(2, from.start, from.len());
                let [_, h, _, width] = held.dims();
                *held = take_int(held).slice_assign([0..1, 0..h, slots.clone(), 0..width], stay);
                let stay = lines.clone().narrow(2, from.start, from.len());
                assign(lines, slots, stay);
            }
        }
    }
}

/// Writes slots. The tensor is taken out, since burn writes in place only if it has one owner.
fn assign(held: &mut Tensor<4>, slots: Range<usize>, x: Tensor<4>) {
    let [_, h, _, d] = held.dims();
    let empty = Tensor::zeros([0, 0, 0, 0], (&held.device(), held.dtype()));
    let owned = std::mem::replace(held, empty);
    *held = owned.slice_assign([0..1, 0..h, slots, 0..d], x);
}

fn take_int(held: &mut Tensor<4, Int>) -> Tensor<4, Int> {
    let empty = Tensor::zeros([0, 0, 0, 0], (&held.device(), held.dtype()));
    std::mem::replace(held, empty)
}

/// Each row of `d` as whole numbers from 0 to 255 between its smallest and its largest value, four
/// in a word, with slope and offset.
fn to_8bit(x: Tensor<4>) -> (Tensor<4, Int>, Tensor<4>) {
    let x = x.cast(DType::F32);
    let (least, most) = (x.clone().min_dim(3), x.clone().max_dim(3));
    // A row of one value has slope zero; the smallest number keeps its quotient finite.
    let slope = (most - least.clone()) / 255.0;
    let steps = (x - least.clone()) / slope.clone().clamp_min(f32::MIN_POSITIVE);
    let values = steps.round().clamp(0.0, 255.0).int().cast(DType::I32);
    let [b, h, n, d] = values.dims();
    let values = values.reshape([b, h, n, d / 4, 4]);
    let byte = |j: usize| {
        let byte = values.clone().narrow(4, j, 1);
        byte.bitwise_left_shift_scalar(8 * j as i32)
    };
    let words = (1..4).fold(byte(0), |words, j| words.bitwise_or(byte(j)));
    let words = words.reshape([b, h, n, d / 4]);
    (words, Tensor::cat(vec![slope, least], 3))
}
