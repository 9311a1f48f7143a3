//! The ops on the CPU: burn's `Flex` tensors, our own loops.
//!
//! Every op cuts its output into blocks whose bounds depend on the shapes alone and gives them to
//! rayon, so the result is the same bit for bit for any number of threads. Matrix products of
//! blocks go through one loop (`gemm.rs`); the compiler vectorises the loops between them for the
//! instruction set that `pulp` finds at run time. Threads write their blocks of an output through
//! one type (`output.rs`), which gives out each block once.

mod attention;
mod exp;
mod few;
mod gemm;
mod linear;
mod loss;
mod output;
mod panels;
mod rows;
mod scratch;
mod vector;
mod views;
mod weight;

use burn::backend::Flex;
use burn::backend::tensor::IntTensor;

pub use few::FEW_ROWS;

use crate::backend::Ops;
use attention::{KeyValues, Queries, Saved, StoredRows, Tables, key_ranges};
use linear::To;
use views::{Primitive, Strided, contiguous, tensor};
use weight::{PackedRows, Weight, WeightValues};

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
        let kv = KeyValues {
            k: StoredRows::of_floats(&k),
            v: StoredRows::of_floats(&v),
            tables: None,
        };
        attend(&q, None, &kv, keys)
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
        let kv = KeyValues {
            k: StoredRows::of_floats(&k),
            v: StoredRows::of_floats(&v),
            tables: Some(tables(&k_cos, &k_sin)),
        };
        attend(&q, Some(tables(&q_cos, &q_sin)), &kv, keys)
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
        let kv = KeyValues {
            k: StoredRows::Bits8(Strided::of(&k, k.storage()), Strided::new(&k_line)),
            v: StoredRows::Bits8(Strided::of(&v, v.storage()), Strided::new(&v_line)),
            tables: Some(tables(&k_cos, &k_sin)),
        };
        attend(&q, Some(tables(&q_cos, &q_sin)), &kv, keys)
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
        // Without a copy if nothing else holds it.
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
            values: WeightValues::Packed(PackedRows {
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
        let out = loss::token_loss(contiguous(&hidden), &Weight::new(&head, c), targets);
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
        let gradients = attention::attention_backward(&Saved {
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
        let (d_hidden, d_head) = loss::token_loss_backward(
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
    kv: &KeyValues,
    keys: IntTensor<Flex>,
) -> (Primitive, Primitive) {
    let [b, h, n, d] = q.layout().shape().dims::<4>();
    let keys = keys.to_contiguous();
    let keys = keys.as_slice::<i32>().expect("attention: keys are i32");
    let queries = Queries {
        rows: Strided::new(q),
        tables: q_tables,
    };
    let (output, lse) = attention::attention(&queries, kv, &key_ranges(keys, kv.len()));
    // In memory [b, n, h, d]: the layer's output projection reads it without a copy.
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
