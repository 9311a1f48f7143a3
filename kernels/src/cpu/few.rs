//! Products of a few rows with a weight, as decoding has them: bound by how fast the weight can be read.
//!
//! Every value of the weight is read once and widened in registers, where it meets all rows; nothing is widened to a
//! buffer. Whatever its type, a weight is read as words of 32 bits, [`LANES`] at a time: a number, two halves, or four or
//! eight packed ones. The rows are arranged beforehand so that values from one place of neighbouring words find their
//! inputs side by side.

use std::marker::PhantomData;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use pulp::bytemuck::{self, Pod};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::packed::Packed;
use super::{Output, Weight, WeightValues};

/// Rows that are few.
pub const FEW: usize = 8;
/// Rows that meet a value of the weight together, where there is more than one.
const TOGETHER: usize = 4;
/// Outputs of a task.
const OUTPUTS: usize = 32;
/// Words of a chunk: the most that a register holds.
const LANES: usize = 16;

/// Bytes of a chunk.
const CHUNK: usize = 4 * LANES;

/// A value of each word of a chunk.
type Lanes = [f32; LANES];

/// How words become numbers.
trait Held {
    /// Numbers of a word.
    const VALUES: usize;
    /// Whether numbers are in steps of a scale, from a zero.
    const PACKED: bool;
    /// What their products are still to be multiplied with.
    const STEPS: f32;

    /// Number `k` of each word.
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s;
}

/// Moves bits up, or down where `by` is negative.
#[inline(always)]
fn shift<S: Simd>(simd: S, words: S::u32s, by: i32) -> S::u32s {
    let amount = simd.splat_u32s(by.unsigned_abs());
    match by < 0 {
        true => simd.wrapping_dyn_shr_u32s(words, amount),
        false => simd.wrapping_dyn_shl_u32s(words, amount),
    }
}

struct F32;

impl Held for F32 {
    const VALUES: usize = 1;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, _: usize) -> S::f32s {
        simd.transmute_f32s_u32s(words)
    }
}

struct Bf16;

impl Held for Bf16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        simd.transmute_f32s_u32s(match k {
            0 => shift(simd, words, 16),
            _ => simd.and_u32s(words, simd.splat_u32s(0xffff_0000)),
        })
    }
}

struct F16;

impl Held for F16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

    /// Exponent and mantissa in their places of an f32, times the difference of the exponents' biases. Weights are finite.
    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
        let upper = if k == 0 {
            shift(simd, words, 16)
        } else {
            words
        };
        let sign = simd.and_u32s(upper, simd.splat_u32s(0x8000_0000));
        let rest = simd.and_u32s(shift(simd, upper, -3), simd.splat_u32s(0x0fff_e000));
        let number = simd.transmute_f32s_u32s(simd.or_u32s(sign, rest));
        simd.mul_f32s(number, simd.splat_f32s(REBIAS))
    }
}

/// Packed numbers `q` of `BITS`, as `1 + q / 2^BITS`: their bits in the upper end of the mantissa of one, which
/// spares a conversion.
struct Packing<const BITS: usize>;

impl<const BITS: usize> Held for Packing<BITS> {
    const VALUES: usize = 32 / BITS;
    const PACKED: bool = true;
    const STEPS: f32 = (1 << BITS) as f32;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        let place = 23 - BITS;
        let bits = shift(simd, words, place as i32 - (BITS * k) as i32);
        let mask = simd.splat_u32s(((1 << BITS) - 1) << place);
        let one = simd.splat_u32s(1f32.to_bits());
        simd.transmute_f32s_u32s(simd.or_u32s(simd.and_u32s(bits, mask), one))
    }
}

/// A few rows, arranged for the words of a weight.
pub struct Rows {
    /// Of each row the chunks, and of each chunk a vector for every place in a word.
    x: Vec<Lanes>,
    /// Of each row and chunk the sum of its vectors.
    sums: Vec<Lanes>,
    n: usize,
    chunks: usize,
}

impl Rows {
    /// Rows `x` `[n, i]` for a weight of as many inputs.
    pub fn new(x: &[f32], weight: &Weight) -> Self {
        let values = match &weight.values {
            WeightValues::F32(_) => 1,
            WeightValues::Bf16(_) | WeightValues::F16(_) => 2,
            WeightValues::Packed(packed) if widened(packed) => 1,
            WeightValues::Packed(packed) => 32 / packed.bits,
        };
        let n = x.len() / weight.inputs;
        let chunks = weight.inputs.div_ceil(values * LANES);
        // Rows of zeros fill up the last ones that are taken together.
        let padded = if n == 1 {
            1
        } else {
            n.next_multiple_of(TOGETHER)
        };
        let mut arranged = vec![[0f32; LANES]; padded * chunks * values];
        let rows = arranged.chunks_exact_mut(chunks * values);
        for (row, x) in rows.zip(x.chunks_exact(weight.inputs)) {
            for (chunk, x) in row.chunks_exact_mut(values).zip(x.chunks(values * LANES)) {
                for (lane, word) in x.chunks(values).enumerate() {
                    for (vector, &x) in chunk.iter_mut().zip(word) {
                        vector[lane] = x;
                    }
                }
            }
        }
        let sums = arranged.chunks_exact(values).map(|vectors| {
            let mut sum = [0f32; LANES];
            for vector in vectors {
                for (sum, x) in sum.iter_mut().zip(vector) {
                    *sum += x;
                }
            }
            sum
        });
        Rows {
            sums: sums.collect(),
            x: arranged,
            n,
            chunks,
        }
    }

    /// Products `[n, o]`.
    pub fn product(&self, weight: &Weight) -> Vec<f32> {
        let outputs = weight.outputs();
        let mut out = vec![0f32; self.n * outputs];
        let target = Output(out.as_mut_ptr());
        let tasks = (0..outputs.div_ceil(OUTPUTS)).into_par_iter();
        tasks.for_each(|task| {
            let start = task * OUTPUTS;
            let block = start..(start + OUTPUTS).min(outputs);
            let len = block.len();
            let mut products = [0f32; FEW * OUTPUTS];
            let products = &mut products[..self.n * len];
            self.product_of(weight, block, products);
            for (row, products) in products.chunks_exact(len).enumerate() {
                let out = target.at(row * outputs + start);
                // SAFETY: this task alone writes these columns of `out`.
                unsafe { std::ptr::copy_nonoverlapping(products.as_ptr(), out, len) };
            }
        });
        out
    }

    /// Products with a block of outputs, `[n, block]`.
    pub fn product_of(&self, weight: &Weight, block: Range<usize>, out: &mut [f32]) {
        let range = block.start * weight.inputs..block.end * weight.inputs;
        match &weight.values {
            WeightValues::F32(values) => self.dense::<F32, _>(&values[range], out),
            WeightValues::Bf16(values) => {
                self.dense::<Bf16, _>(values[range].reinterpret_cast(), out);
            }
            WeightValues::F16(values) => {
                self.dense::<F16, _>(values[range].reinterpret_cast(), out);
            }
            WeightValues::Packed(packed) if widened(packed) => {
                self.dense::<F32, _>(packed.rows(block, &mut Vec::new()), out);
            }
            WeightValues::Packed(packed) if packed.bits == 4 => {
                self.packed::<Packing<4>>(packed, block, out);
            }
            WeightValues::Packed(packed) => self.packed::<Packing<8>>(packed, block, out),
        }
    }

    fn dense<H: Held, T: Pod>(&self, values: &[T], out: &mut [f32]) {
        self.dispatch::<H, 1>(bytemuck::cast_slice(values), &[], self.chunks, out);
    }

    fn packed<H: Held>(&self, packed: &Packed, block: Range<usize>, out: &mut [f32]) {
        let width = packed.width();
        let words = &packed.words[block.start * width..block.end * width];
        let words = bytemuck::cast_slice(words);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        let scales = packed.scales.rows(block.clone(), &mut scales);
        let zeros = packed.zeros(block.clone(), &mut zeros);
        let scales = scales.chunks_exact(scales.len() / block.len());
        let of_rows = scales.zip(zeros.chunks_exact(zeros.len() / block.len()));
        // As the values of the weight come.
        let zero = |zero: f32| 1.0 + zero / H::STEPS;

        let group = packed.group.min(packed.inputs) / H::VALUES;
        if group.is_multiple_of(LANES) || packed.group >= packed.inputs {
            let of_group = group.div_ceil(LANES);
            let width = packed.scales.inputs;
            let mut factors = vec![[0f32; 2]; block.len() * width];
            for (row, (scales, zeros)) in factors.chunks_exact_mut(width).zip(of_rows) {
                for (factors, (&s, &z)) in row.iter_mut().zip(scales.iter().zip(zeros)) {
                    *factors = [s, zero(z)];
                }
            }
            let factors = factors.as_flattened();
            return self.dispatch::<H, 1>(words, factors, of_group, out);
        }
        let width = 2 * LANES * self.chunks;
        let mut factors = vec![0f32; block.len() * width];
        for (row, (scales, zeros)) in factors.chunks_exact_mut(width).zip(of_rows) {
            for (g, (&s, &z)) in scales.iter().zip(zeros).enumerate() {
                for word in g * group..((g + 1) * group).min(packed.width()) {
                    let lane = word / LANES * 2 * LANES + word % LANES;
                    (row[lane], row[lane + LANES]) = (s, zero(z));
                }
            }
        }
        self.dispatch::<H, LANES>(words, &factors, 1, out);
    }

    /// Products with the rows of a weight, whose groups have `of_group` chunks, but for the last, and factors as
    /// [`Task`] says.
    fn dispatch<H: Held, const EACH: usize>(
        &self,
        weight: &[u8],
        factors: &[f32],
        of_group: usize,
        out: &mut [f32],
    ) {
        let outputs = out.len() / self.n;
        let width = self.chunks * CHUNK;
        let found = weight.len() / outputs;
        let mut padded = Vec::new();
        if found != width {
            assert!(found < width && found + CHUNK > width, "other rows");
            padded.resize(outputs * width, 0);
            for (padded, row) in padded
                .chunks_exact_mut(width)
                .zip(weight.chunks_exact(found))
            {
                padded[..found].copy_from_slice(row);
            }
        }
        let groups = self.chunks.div_ceil(of_group);
        let wanted = outputs * groups * 2 * EACH;
        assert_eq!(factors.len(), if H::PACKED { wanted } else { 0 }, "factors");
        let task = Task {
            rows: self,
            weight: if padded.is_empty() { weight } else { &padded },
            factors,
            of_group,
            out,
        };
        match self.n {
            1 => Arch::new().dispatch(Blocked::<H, EACH, 4, 1>(task, PhantomData)),
            _ => Arch::new().dispatch(Blocked::<H, EACH, 2, TOGETHER>(task, PhantomData)),
        }
    }
}

/// Whether a packed weight has groups that begin or end within a word; its rows are widened to a buffer then.
fn widened(packed: &Packed) -> bool {
    packed.group < packed.inputs && !packed.group.is_multiple_of(32 / packed.bits)
}

/// Rows, and rows of a weight in whole chunks.
struct Task<'a> {
    rows: &'a Rows,
    weight: &'a [u8],
    /// Of each row of a packed weight and each group the scale and the zero, as `1 + zero / 2^bits`: one of each, or a
    /// vector of each, for groups that are shorter than a chunk.
    factors: &'a [f32],
    /// Chunks of a group; the last may have fewer.
    of_group: usize,
    /// `[n, o]`.
    out: &'a mut [f32],
}

/// A task in blocks of `O` outputs and `R` rows, with `EACH` scales a group.
struct Blocked<'a, H, const EACH: usize, const O: usize, const R: usize>(Task<'a>, PhantomData<H>);

impl<H: Held, const EACH: usize, const O: usize, const R: usize> WithSimd
    for Blocked<'_, H, EACH, O, R>
{
    type Output = ();

    // Loops and no closures: these would not be compiled for the instruction set.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.0.rows.n;
        let outputs = self.0.out.len() / n;
        for first in (0..outputs).step_by(O) {
            let mut which = [first; O];
            for o in 0..O {
                // Where fewer are left, the last one is computed several times.
                which[o] = (first + o).min(outputs - 1);
            }
            for row in (0..n).step_by(R) {
                let total = self.products(simd, which, row);
                for o in 0..O {
                    for r in 0..R.min(n - row) {
                        let product = simd.reduce_sum_f32s(total[o][r]) * H::STEPS;
                        self.0.out[(row + r) * outputs + which[o]] = product;
                    }
                }
            }
        }
    }
}

impl<H: Held, const EACH: usize, const O: usize, const R: usize> Blocked<'_, H, EACH, O, R> {
    /// Outputs `which` of rows `row..row + R`, spread over a register and still to be multiplied with `STEPS`.
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, which: [usize; O], row: usize) -> [[S::f32s; R]; O] {
        let Task { rows, of_group, .. } = self.0;
        let groups = rows.chunks.div_ceil(of_group);
        let mut weight = [self.0.weight.as_ptr(); O];
        let mut factors = [self.0.factors.as_ptr(); O];
        for o in 0..O {
            weight[o] = weight[o].wrapping_add(which[o] * rows.chunks * CHUNK);
            factors[o] = factors[o].wrapping_add(which[o] * groups * 2 * EACH);
        }
        // Registers of a chunk: all of them have one scale, or each has its own.
        let parts = LANES / S::F32_LANES;
        let (apart, together) = if EACH == 1 { (1, parts) } else { (parts, 1) };
        let none = simd.splat_f32s(0.0);
        let mut total = [[none; R]; O];
        for group in 0..groups {
            for first in 0..apart {
                let mut products = [[none; R]; O];
                let mut sums = [none; R];
                for chunk in group * of_group..rows.chunks.min((group + 1) * of_group) {
                    for o in 0..O {
                        // The same place of the next outputs.
                        prefetch(weight[o].wrapping_add((chunk + O * rows.chunks) * CHUNK));
                    }
                    for part in first..first + together {
                        // SAFETY: `weight` points at rows of as many chunks.
                        unsafe {
                            self.add(simd, (row, chunk, part), weight, &mut products, &mut sums);
                        }
                    }
                }
                if !H::PACKED {
                    total = products;
                    continue;
                }
                for o in 0..O {
                    let own = factors[o].wrapping_add(group * 2 * EACH);
                    // SAFETY: every output has factors for every group, as `dispatch` has seen to.
                    let (scale, zero) = unsafe {
                        match EACH {
                            1 => (simd.splat_f32s(*own), simd.splat_f32s(*own.add(1))),
                            _ => (load::<S>(own, first), load::<S>(own.add(EACH), first)),
                        }
                    };
                    for r in 0..R {
                        let steps = simd.negate_mul_add_f32s(zero, sums[r], products[o][r]);
                        total[o][r] = simd.mul_add_f32s(scale, steps, total[o][r]);
                    }
                }
            }
        }
        total
    }

    /// Adds the products of a part of a chunk, and the sums of the rows over it.
    ///
    /// # Safety
    /// Each of `weight` must point at a row of chunks.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &self,
        simd: S,
        (row, chunk, part): (usize, usize, usize),
        weight: [*const u8; O],
        products: &mut [[S::f32s; R]; O],
        sums: &mut [S::f32s; R],
    ) {
        let Rows {
            x,
            sums: of_x,
            chunks,
            ..
        } = self.0.rows;
        for o in 0..O {
            // SAFETY: a part of a chunk of the row, whatever its alignment.
            let words = unsafe {
                let chunk = weight[o].add(chunk * CHUNK);
                chunk.cast::<S::u32s>().add(part).read_unaligned()
            };
            for k in 0..H::VALUES {
                let values = H::value(simd, words, k);
                for r in 0..R {
                    let at = ((row + r) * chunks + chunk) * H::VALUES + k;
                    // SAFETY: every row has vectors for every chunk, as `Rows::new` has seen to.
                    let x = unsafe { load::<S>(x.as_ptr().add(at).cast(), part) };
                    products[o][r] = simd.mul_add_f32s(values, x, products[o][r]);
                }
            }
        }
        if H::PACKED {
            for r in 0..R {
                let at = (row + r) * chunks + chunk;
                // SAFETY: as above.
                let sum = unsafe { load::<S>(of_x.as_ptr().add(at).cast(), part) };
                sums[r] = simd.add_f32s(sums[r], sum);
            }
        }
    }
}

/// The `part`-th register of a vector.
///
/// # Safety
/// There must be such a vector.
#[inline(always)]
unsafe fn load<S: Simd>(vector: *const f32, part: usize) -> S::f32s {
    // SAFETY: the caller's contract.
    unsafe { vector.cast::<S::f32s>().add(part).read_unaligned() }
}

/// Asks for what will be read soon: short rows are over before the processor sees that they are read in order.
#[inline(always)]
fn prefetch(_address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(_address.cast());
    }
}
