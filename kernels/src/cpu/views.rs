//! Tensors of the `Flex` back end as the loops read them.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};

/// A tensor of the `Flex` back end.
pub type Primitive = FloatTensor<Flex>;

pub fn tensor<const D: usize>(values: Vec<f32>, shape: &[usize; D]) -> Primitive {
    Primitive::from_data(TensorData::new(values, *shape))
}

/// The values of a contiguous f32 tensor.
pub fn contiguous(x: &Primitive) -> &[f32] {
    x.as_slice::<f32>()
        .unwrap_or_else(|| panic!("the CPU ops compute in f32, contiguous; got {x:?}"))
}

/// An `[b, h, n, d]` view whose rows of `d` are contiguous.
pub struct Strided<'a, T = f32> {
    values: &'a [T],
    pub shape: [usize; 4],
    strides: [usize; 3],
    offset: usize,
}

impl<'a> Strided<'a> {
    /// A view of an f32 tensor.
    pub fn new(x: &'a Primitive) -> Self {
        assert_eq!(x.dtype(), DType::F32, "the CPU ops compute in f32");
        Self::of(x, x.storage())
    }
}

impl<'a, T> Strided<'a, T> {
    /// A view of a tensor over its storage.
    pub fn of(x: &'a Primitive, values: &'a [T]) -> Self {
        let layout = x.layout();
        let strides = layout.strides();
        let shape = layout.shape().dims::<4>();
        assert!(
            strides.iter().all(|&stride| stride >= 0) && (strides[3] == 1 || shape[3] <= 1),
            "the CPU ops read rows that are contiguous; got {x:?}"
        );
        Strided {
            values,
            shape,
            strides: [
                strides[0] as usize,
                strides[1] as usize,
                strides[2] as usize,
            ],
            offset: layout.start_offset(),
        }
    }

    /// Values from the first row of batch `b`, head `h` on; row `i` starts at `i * row_stride`.
    pub fn head(&self, b: usize, h: usize) -> &'a [T] {
        &self.values[self.offset + b * self.strides[0] + h * self.strides[1]..]
    }

    pub fn row_stride(&self) -> usize {
        self.strides[2]
    }

    pub fn row(&self, b: usize, h: usize, i: usize) -> &'a [T] {
        &self.head(b, h)[i * self.strides[2]..][..self.shape[3]]
    }
}
