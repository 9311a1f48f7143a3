//! The ops on the CPU: burn's `Flex` tensors, our own loops.
//!
//! Every op splits its output into blocks whose bounds depend on the shapes alone and gives them to
//! rayon, so that the result is the same bit for bit whatever the number of threads. Matrix products of blocks go through one
//! loop (`gemm.rs`); the loops between them are written so that the compiler vectorises them for the instruction set that
//! `pulp` finds at run time.

mod attention;
mod attention_backward;
mod few;
mod gemm;
mod keys;
mod linear;
mod packed;
mod rows;
mod vector;

use std::cell::Cell;

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, TensorData};
use half::{bf16, f16};

pub use few::FEW as FEW_ROWS;

use crate::Ops;
use attention::{Queries, Tables, key_ranges};
use keys::{Held, Rows};
use linear::To;

/// A tensor of the `Flex` back end.
type Primitive = FloatTensor<Flex>;

impl Ops for Flex {
    fn rotary(x: Primitive, cos: Primitive, sin: Primitive) -> Primitive {
        let out = rows::rotary(&Strided::new(&x), contiguous(&cos), contiguous(&sin));
        tensor(out, &x.layout().shape().dims::<4>())
    }

    fn attention(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        keys: IntTensor<Self>,
    ) -> (Primitive, Primitive) {
        let held = Held {
            k: Rows::of_floats(&k),
            v: Rows::of_floats(&v),
            tables: None,
        };
        attend(&q, None, &held, keys)
    }

    fn rotary_attention(
        q: Primitive,
        q_cos: Primitive,
        q_sin: Primitive,
        k: Primitive,
        k_cos: Primitive,
        k_sin: Primitive,
        v: Primitive,
        keys: IntTensor<Self>,
    ) -> (Primitive, Primitive) {
        let held = Held {
            k: Rows::of_floats(&k),
            v: Rows::of_floats(&v),
            tables: Some(tables(&k_cos, &k_sin)),
        };
        attend(&q, Some(tables(&q_cos, &q_sin)), &held, keys)
    }

    fn rotary_attention_8bit(
        q: Primitive,
        q_cos: Primitive,
        q_sin: Primitive,
        k: IntTensor<Self>,
        k_line: Primitive,
        k_cos: Primitive,
        k_sin: Primitive,
        v: IntTensor<Self>,
        v_line: Primitive,
        keys: IntTensor<Self>,
    ) -> (Primitive, Primitive) {
        let held = Held {
            k: Rows::Bits8(Strided::of(&k, k.storage()), Strided::new(&k_line)),
            v: Rows::Bits8(Strided::of(&v, v.storage()), Strided::new(&v_line)),
            tables: Some(tables(&k_cos, &k_sin)),
        };
        attend(&q, Some(tables(&q_cos, &q_sin)), &held, keys)
    }

    fn merge(
        a: Primitive,
        a_lse: Primitive,
        b: Primitive,
        b_lse: Primitive,
    ) -> (Primitive, Primitive) {
        let [batch, h, n, d] = a.layout().shape().dims::<4>();
        let (output, lse) = rows::merge(
            &Strided::new(&a),
            contiguous(&a_lse),
            &Strided::new(&b),
            contiguous(&b_lse),
        );
        let output = tensor(output, &[batch, n, h, d]);
        let permuted = output.layout().permute(&[0, 2, 1, 3]);
        (output.with_layout(permuted), tensor(lse, &[batch, h, n]))
    }

    fn rms_norm(x: Primitive, weight: Primitive, epsilon: f64) -> Primitive {
        let x = x.to_contiguous();
        let out = rows::rms_norm(contiguous(&x), contiguous(&weight), epsilon as f32);
        tensor(out, &x.layout().shape().dims::<2>())
    }

    fn swiglu(up: Primitive, gate: Primitive) -> Primitive {
        let (up, gate) = (up.to_contiguous(), gate.to_contiguous());
        let out = rows::swiglu(contiguous(&up), contiguous(&gate));
        tensor(out, &up.layout().shape().dims::<2>())
    }

    fn linear(x: Primitive, weight: Primitive) -> Primitive {
        multiply(x, weight, To::Zero)
    }

    fn linear_add(x: Primitive, weight: Primitive, to: Primitive) -> Primitive {
        let n = x.layout().shape().dims::<2>()[0];
        let rows = to.layout().shape().dims::<2>()[0];
        if rows == 1 && n != 1 {
            return multiply(x, weight, To::Bias(contiguous(&to)));
        }
        // Without a copy, where nothing else holds it.
        let to = to.into_data().try_into_vec();
        multiply(x, weight, To::Rows(to.expect("linear_add: `to` is f32")))
    }

    fn gated_linear(x: Primitive, up: Primitive, gate: Primitive) -> Primitive {
        let [x, up, gate] = [x, up, gate].map(|x| x.to_contiguous());
        let [n, i] = x.layout().shape().dims::<2>();
        let (up, gate) = (Weight::new(&up, i), Weight::new(&gate, i));
        let out = linear::gated_linear(contiguous(&x), &up, &gate);
        tensor(out, &[n, up.outputs()])
    }

    fn packed_linear(
        x: Primitive,
        words: IntTensor<Self>,
        zeros: IntTensor<Self>,
        scales: Primitive,
        bits: usize,
        group: usize,
    ) -> Primitive {
        let x = x.to_contiguous();
        let [n, inputs] = x.layout().shape().dims::<2>();
        let (words, zeros) = (words.to_contiguous(), zeros.to_contiguous());
        let scales = scales.to_contiguous();
        let [o, groups] = scales.layout().shape().dims::<2>();
        let scales = Weight::new(&scales, groups);
        let weight = Weight {
            values: WeightValues::Packed(packed::Packed {
                words: words.as_slice().expect("packed_linear: words are i32"),
                zeros: zeros.as_slice().expect("packed_linear: zeros are i32"),
                scales: &scales,
                bits,
                group,
                inputs,
            }),
            inputs,
        };
        tensor(linear::linear(contiguous(&x), &weight, To::Zero), &[n, o])
    }

    fn token_loss(hidden: Primitive, head: Primitive, targets: IntTensor<Self>) -> Primitive {
        let hidden = hidden.to_contiguous();
        let [n, c] = hidden.layout().shape().dims::<2>();
        let head = head.to_contiguous();
        let targets = targets.to_contiguous();
        let targets = targets
            .as_slice::<i32>()
            .expect("token_loss: targets are i32");
        let out = linear::token_loss(contiguous(&hidden), &Weight::new(&head, c), targets);
        tensor(out, &[n])
    }

    fn attention_backward(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        keys: IntTensor<Self>,
        lse: Primitive,
        output: Primitive,
        d_output: Primitive,
        d_lse: Primitive,
    ) -> (Primitive, Primitive, Primitive) {
        let [b, h, n, d] = q.layout().shape().dims::<4>();
        let m = k.layout().shape().dims::<4>()[2];
        let (keys, lse, d_lse) = (
            keys.to_contiguous(),
            lse.to_contiguous(),
            d_lse.to_contiguous(),
        );
        let gradients = attention_backward::attention_backward(&attention_backward::Saved {
            q: Strided::new(&q),
            k: Strided::new(&k),
            v: Strided::new(&v),
            keys: keys.as_slice::<i32>().expect("attention: keys are i32"),
            lse: contiguous(&lse),
            output: Strided::new(&output),
            d_output: Strided::new(&d_output),
            d_lse: contiguous(&d_lse),
        });
        let [d_q, d_k, d_v] = gradients;
        let heads_first = |values: Vec<f32>, rows: usize| {
            let gradient = tensor(values, &[b, rows, h, d]);
            let permuted = gradient.layout().permute(&[0, 2, 1, 3]);
            gradient.with_layout(permuted)
        };
        (
            heads_first(d_q, n),
            heads_first(d_k, m),
            heads_first(d_v, m),
        )
    }

    fn rms_norm_backward(
        x: Primitive,
        weight: Primitive,
        epsilon: f64,
        d_output: Primitive,
    ) -> (Primitive, Primitive) {
        let (x, d_output) = (x.to_contiguous(), d_output.to_contiguous());
        let weight = contiguous(&weight);
        let (x_values, grad) = (contiguous(&x), contiguous(&d_output));
        let (d_x, d_weight) = rows::rms_norm_backward(x_values, weight, epsilon as f32, grad);
        let shape = x.layout().shape().dims::<2>();
        (tensor(d_x, &shape), tensor(d_weight, &[shape[1]]))
    }

    fn swiglu_backward(
        up: Primitive,
        gate: Primitive,
        d_output: Primitive,
    ) -> (Primitive, Primitive) {
        let [up, gate, d_output] = [up, gate, d_output].map(|x| x.to_contiguous());
        let (d_up, d_gate) =
            rows::swiglu_backward(contiguous(&up), contiguous(&gate), contiguous(&d_output));
        let shape = up.layout().shape().dims::<2>();
        (tensor(d_up, &shape), tensor(d_gate, &shape))
    }

    fn linear_backward(
        x: Primitive,
        weight: Primitive,
        d_output: Primitive,
    ) -> (Primitive, Primitive) {
        let [x, weight, d_output] = [x, weight, d_output].map(|x| x.to_contiguous());
        let (d_x, d_weight) = linear::linear_backward(
            contiguous(&x),
            contiguous(&weight),
            contiguous(&d_output),
            x.layout().shape().dims::<2>()[1],
        );
        (
            tensor(d_x, &x.layout().shape().dims::<2>()),
            tensor(d_weight, &weight.layout().shape().dims::<2>()),
        )
    }

    fn token_loss_backward(
        hidden: Primitive,
        head: Primitive,
        targets: IntTensor<Self>,
        d_loss: Primitive,
    ) -> (Primitive, Primitive) {
        let [hidden, head, d_loss] = [hidden, head, d_loss].map(|x| x.to_contiguous());
        let targets = targets.to_contiguous();
        let (d_hidden, d_head) = linear::token_loss_backward(
            contiguous(&hidden),
            contiguous(&head),
            targets
                .as_slice::<i32>()
                .expect("token_loss: targets are i32"),
            contiguous(&d_loss),
        );
        (
            tensor(d_hidden, &hidden.layout().shape().dims::<2>()),
            tensor(d_head, &head.layout().shape().dims::<2>()),
        )
    }
}

/// `to + x weightᵀ`.
fn multiply(x: Primitive, weight: Primitive, to: To) -> Primitive {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let [n, i] = x.layout().shape().dims::<2>();
    let weight = Weight::new(&weight, i);
    let out = linear::linear(contiguous(&x), &weight, to);
    tensor(out, &[n, weight.outputs()])
}

fn attend(
    q: &Primitive,
    q_tables: Option<Tables>,
    held: &Held,
    keys: IntTensor<Flex>,
) -> (Primitive, Primitive) {
    let [b, h, n, d] = q.layout().shape().dims::<4>();
    let keys = keys.to_contiguous();
    let keys = keys.as_slice::<i32>().expect("attention: keys are i32");
    let queries = Queries {
        rows: Strided::new(q),
        tables: q_tables,
    };
    let m = held.len();
    let (output, lse) = attention::attention(&queries, held, &key_ranges(keys, m), m);
    // Written as [b, n, h, d], which is what the layer's output projection reads in place.
    let output = tensor(output, &[b, n, h, d]);
    let permuted = output.layout().permute(&[0, 2, 1, 3]);
    (output.with_layout(permuted), tensor(lse, &[b, h, n]))
}

fn tables<'a>(cos: &'a Primitive, sin: &'a Primitive) -> Tables<'a> {
    Tables {
        cos: contiguous(cos),
        sin: contiguous(sin),
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with memory of a thread's own that is kept from task to task; what it holds is whatever was left there.
fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken out meanwhile: a task that another one starts gets its own.
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}

/// Start of an output that tasks write in disjoint blocks.
struct Output(*mut f32);
// SAFETY: each task writes only the values that are its own.
unsafe impl Sync for Output {}
unsafe impl Send for Output {}

impl Output {
    /// The value at an offset; a method, so that closures capture the whole `Output`.
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: &[usize; D]) -> Primitive {
    Primitive::from_data(TensorData::new(values, *shape))
}

fn contiguous(x: &Primitive) -> &[f32] {
    x.as_slice::<f32>()
        .unwrap_or_else(|| panic!("the CPU ops compute in f32, contiguous; got {x:?}"))
}

/// An `[b, h, n, d]` view whose rows of `d` are contiguous.
struct Strided<'a, T = f32> {
    values: &'a [T],
    shape: [usize; 4],
    strides: [usize; 3],
    offset: usize,
}

impl<'a> Strided<'a> {
    fn new(x: &'a Primitive) -> Self {
        assert_eq!(x.dtype(), DType::F32, "the CPU ops compute in f32");
        Self::of(x, x.storage())
    }
}

impl<'a, T> Strided<'a, T> {
    /// A view of a tensor over its storage.
    fn of(x: &'a Primitive, values: &'a [T]) -> Self {
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
    fn head(&self, b: usize, h: usize) -> &'a [T] {
        &self.values[self.offset + b * self.strides[0] + h * self.strides[1]..]
    }

    fn row_stride(&self) -> usize {
        self.strides[2]
    }

    fn row(&self, b: usize, h: usize, i: usize) -> &'a [T] {
        &self.head(b, h)[i * self.strides[2]..][..self.shape[3]]
    }
}

/// A weight `[o, i]` in the type in which it is held.
struct Weight<'a> {
    values: WeightValues<'a>,
    inputs: usize,
}

enum WeightValues<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Packed(packed::Packed<'a>),
}

impl<'a> Weight<'a> {
    fn new(x: &'a Primitive, inputs: usize) -> Self {
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

    fn outputs(&self) -> usize {
        let len = match &self.values {
            WeightValues::Packed(packed) => return packed.outputs(),
            WeightValues::F32(values) => values.len(),
            WeightValues::Bf16(values) => values.len(),
            WeightValues::F16(values) => values.len(),
        };
        len / self.inputs
    }

    /// Rows `outputs` in f32; `buffer` holds them when they have to be widened.
    fn rows<'b>(&'b self, outputs: std::ops::Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let range = outputs.start * self.inputs..outputs.end * self.inputs;
        match &self.values {
            WeightValues::Packed(packed) => packed.rows(outputs, buffer),
            WeightValues::F32(values) => &values[range],
            WeightValues::Bf16(values) => vector::widen_bf16(&values[range], buffer),
            WeightValues::F16(values) => vector::widen_f16(&values[range], buffer),
        }
    }
}
