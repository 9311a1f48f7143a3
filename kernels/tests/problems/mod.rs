//! The kernels' problems: the small ones, awkward, are those of `tests/cube/`; the large ones
//! those of `benches/kernels.rs`.
#![allow(dead_code)] // each of the two uses a part

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Rotation of `[b, h, n, d]`, given as a permuted view of `[b, n, h, d]`.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    pub b: usize,
    pub h: usize,
    pub n: usize,
    pub d: usize,
}

/// Causal attention of `n` queries over `m` keys, bottom-right aligned, with the last `window` keys
/// in view.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub b: usize,
    pub h: usize,
    pub n: usize,
    pub m: usize,
    pub d: usize,
    pub window: usize,
    /// Largest value of queries and keys.
    pub scale: f32,
}

/// Rows of `c` values, the largest of which is `scale`.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub n: usize,
    pub c: usize,
    pub scale: f32,
}

/// `n` rows of `i` values times a matrix of `o` outputs, packed in `bits`, of which `group` inputs
/// share a scale.
#[derive(Clone, Copy, Debug)]
pub struct PackedProduct {
    pub n: usize,
    pub i: usize,
    pub o: usize,
    pub bits: usize,
    pub group: usize,
}

/// Loss of `n` rows of `c` values over a vocabulary of `v`.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub n: usize,
    pub c: usize,
    pub v: usize,
    pub scale: f32,
}

const fn rotary(b: usize, h: usize, n: usize, d: usize) -> Rotary {
    Rotary { b, h, n, d }
}

#[rustfmt::skip]
const fn attention(b: usize, h: usize, n: usize, m: usize, d: usize, window: usize, scale: f32) -> Attention {
    Attention { b, h, n, m, d, window, scale }
}

const fn rows(n: usize, c: usize, scale: f32) -> Rows {
    Rows { n, c, scale }
}

const fn packed(n: usize, i: usize, o: usize, bits: usize, group: usize) -> PackedProduct {
    PackedProduct {
        n,
        i,
        o,
        bits,
        group,
    }
}

const fn loss(n: usize, c: usize, v: usize, scale: f32) -> Loss {
    Loss { n, c, v, scale }
}

pub const ROTARY: [Rotary; 5] = [
    rotary(1, 1, 1, 2),
    rotary(2, 3, 17, 16),
    rotary(1, 2, 129, 128),
    rotary(1, 5, 1000, 80),
    rotary(2, 1, 3, 256),
];

pub const ATTENTION: [Attention; 18] = [
    attention(1, 1, 1, 1, 16, 1, 1.0),
    attention(2, 3, 17, 17, 16, 5, 1.0),
    attention(1, 2, 129, 129, 32, 1000, 1.0),
    attention(1, 2, 129, 129, 64, 1000, 20.0),
    attention(1, 1, 129, 129, 80, 40, 1.0),
    attention(2, 1, 129, 129, 96, 64, 1.0),
    attention(1, 2, 129, 129, 128, 100, 1.0),
    attention(1, 1, 17, 129, 256, 40, 1.0),
    attention(1, 1, 129, 17, 16, 17, 1.0), // the first queries see no key
    attention(1, 1, 129, 17, 128, 3, 20.0),
    attention(1, 1, 1000, 1000, 64, 1000, 1.0),
    attention(1, 1, 1000, 1000, 128, 257, 1.0),
    // Decoding: few queries, keys split.
    attention(1, 2, 1, 1000, 16, 1000, 1.0),
    attention(1, 2, 1, 1000, 128, 1000, 20.0),
    attention(2, 1, 3, 1000, 64, 700, 1.0),
    attention(1, 1, 4, 1000, 80, 1000, 1.0),
    attention(1, 2, 2, 129, 256, 129, 1.0),
    attention(1, 1, 4, 2, 32, 2, 1.0), // two queries see no key
];

/// `[b, h, n, d]` of two outputs.
pub const MERGE: [Rotary; 3] = [
    rotary(1, 1, 1, 16),
    rotary(2, 3, 17, 16),
    rotary(1, 2, 129, 128),
];

pub const ROWS: [Rows; 6] = [
    rows(1, 1, 1.0),
    rows(17, 17, 30.0),
    rows(129, 64, 1.0),
    rows(3, 1000, 30.0),
    rows(1000, 128, 1.0),
    rows(2, 4096, 1000.0),
];

pub const LOSS: [Loss; 5] = [
    loss(1, 16, 1, 1.0),
    loss(17, 64, 320, 1.0),
    loss(129, 17, 1000, 1.0),
    loss(1000, 64, 129, 40.0),
    loss(17, 32, 1000, 40.0),
];

pub const PACKED: [PackedProduct; 8] = [
    packed(1, 16, 1, 4, 16),
    packed(1, 1056, 301, 4, 128),
    packed(3, 1056, 33, 8, 128),
    packed(4, 64, 17, 8, 1000),
    packed(5, 64, 17, 4, 24), // groups that end within a word's column, the last one shorter
    packed(17, 1056, 301, 4, 128),
    packed(129, 128, 33, 8, 32),
    packed(1000, 64, 129, 4, 64),
];

/// What `docs/gpu.md` compares with PyTorch: batch 1, 32 heads of 128.
pub const TIMED_ATTENTION: [Attention; 10] = [
    attention(1, 32, 2048, 2048, 128, 2048, 1.0),
    attention(1, 32, 8192, 8192, 128, 8192, 1.0),
    attention(1, 32, 32768, 32768, 128, 32768, 1.0),
    attention(1, 32, 2048, 2048, 128, 1024, 1.0),
    attention(1, 32, 8192, 8192, 128, 1024, 1.0),
    attention(1, 32, 8192, 8192, 128, 4096, 1.0),
    attention(1, 32, 32768, 32768, 128, 1024, 1.0),
    attention(1, 32, 32768, 32768, 128, 4096, 1.0),
    attention(1, 32, 1, 8192, 128, 8192, 1.0),
    attention(1, 32, 1, 32768, 128, 32768, 1.0),
];
pub const TIMED_ROTARY: [Rotary; 2] = [rotary(1, 32, 8192, 128), rotary(1, 32, 32768, 128)];
pub const TIMED_ROWS: [Rows; 2] = [rows(8192, 4096, 1.0), rows(32768, 4096, 1.0)];
pub const TIMED_PACKED: [PackedProduct; 4] = [
    packed(1, 4096, 11008, 4, 128),
    packed(1, 4096, 11008, 8, 128),
    packed(2048, 4096, 11008, 4, 128),
    packed(2048, 4096, 11008, 8, 128),
];
pub const TIMED_LOSS: [Loss; 1] = [loss(2048, 4096, 151_936, 1.0)];

impl Attention {
    /// Pairs of a query and a key in its view, over all heads.
    pub fn pairs(&self) -> usize {
        let pairs = self.ranges();
        self.b
            * self.h
            * pairs
                .chunks(2)
                .map(|r| (r[1] - r[0]) as usize)
                .sum::<usize>()
    }

    /// Key ranges `[n, 2]`.
    pub fn ranges(&self) -> Vec<i32> {
        (0..self.n)
            .flat_map(|i| {
                let end = (self.m + i + 1).saturating_sub(self.n);
                [end.saturating_sub(self.window) as i32, end as i32]
            })
            .collect()
    }
}

/// Uniform values between `-scale` and `scale`.
pub fn random(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len)
        .map(|_| scale * (rng.random::<f32>() * 2.0 - 1.0))
        .collect()
}
