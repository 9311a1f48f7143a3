//! Values of a safetensors file in the type that the model holds.

use burn::tensor::Bytes;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Drops bytes of a mapped file that were read from memory.
pub(crate) type Release<'a> = dyn Fn(&[u8]) + 'a;

/// Bytes that are read before their pages are released. The embedding of a large vocabulary alone
/// is half a gigabyte, and its pages must not be resident next to the copy.
pub(crate) const PIECE: usize = 32 << 20;

/// A type of weights in memory.
pub(crate) trait WeightElement:
    Copy + Send + Sync + Default + burn::tensor::Element
{
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

macro_rules! weight_element {
    ($type:ty, $from:expr, $to:expr) => {
        impl WeightElement for $type {
            fn from_f32(x: f32) -> Self {
                $from(x)
            }
            fn to_f32(self) -> f32 {
                $to(self)
            }
        }
    };
}
weight_element!(f32, |x| x, |x| x);
weight_element!(bf16, bf16::from_f32, bf16::to_f32);
weight_element!(f16, f16::from_f32, f16::to_f32);

/// Converts the little-endian values of a tensor, and releases each piece of it once it is read.
///
/// # Errors
/// A value is not finite, before or after the conversion: its index, and the value in the file.
pub(crate) fn convert<T: WeightElement>(
    bytes: &[u8],
    from: Dtype,
    release: &Release,
) -> Result<Bytes, (usize, f32)> {
    let read: fn(&[u8]) -> f32 = match from {
        Dtype::F32 => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Dtype::BF16 => |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        _ => |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
    };
    let size = if from == Dtype::F32 { 4 } else { 2 };
    let mut values = vec![T::default(); bytes.len() / size];
    const TASK: usize = 1 << 16;
    let pieces = values.chunks_mut(PIECE / size).zip(bytes.chunks(PIECE));
    for (piece, (values, bytes)) in pieces.enumerate() {
        let first = piece * (PIECE / size);
        values
            .par_chunks_mut(TASK)
            .zip(bytes.par_chunks(TASK * size))
            .enumerate()
            .try_for_each(|(task, (values, bytes))| {
                let pairs = values.iter_mut().zip(bytes.chunks_exact(size));
                for (i, (value, bytes)) in pairs.enumerate() {
                    let x = read(bytes);
                    *value = T::from_f32(x);
                    if !value.to_f32().is_finite() {
                        return Err((first + task * TASK + i, x));
                    }
                }
                Ok(())
            })?;
        release(bytes);
    }
    Ok(Bytes::from_elems(values))
}
