//! Keys and values of one layer that stay from pass to pass, and attention over them.
//!
//! Keys are held as they were before rotation, so that a method may give them other positions or frequencies
//! later on; they are rotated when they are read. Of a layer that sees a window, what no
//! later query can see is dropped; the first tokens (sinks) stay.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor};
use longspan_attention::{Band, LayerPlan, Plans};
use longspan_rope::Spectrum;

use crate::plan::{TableSpec, key_ranges};
use crate::{KernelError, ops, supported};

/// The type in which a cache holds keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 8 bits, and a slope and an offset for each token and head (Qwen's `use_cache_quantization`).
    Int8,
}

impl CacheType {
    /// All of them.
    pub const ALL: [CacheType; 4] = [
        CacheType::F32,
        CacheType::Bf16,
        CacheType::F16,
        CacheType::Int8,
    ];

    /// Name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::Bf16 => "bf16",
            CacheType::F16 => "f16",
            CacheType::Int8 => "int8",
        }
    }

    /// Whether a device can hold such a cache, for heads of `d` components.
    ///
    /// # Errors
    /// What is missing.
    pub fn supported(self, device: &Device, d: usize) -> Result<(), KernelError> {
        let dtype = match self {
            CacheType::F32 => DType::F32,
            CacheType::Bf16 => DType::BF16,
            CacheType::F16 => DType::F16,
            CacheType::Int8 if d.is_multiple_of(4) => DType::F32,
            CacheType::Int8 => return Err(KernelError::Words { d }),
        };
        supported(device, d, &[DType::F32, dtype])
    }

    /// Bytes of a row of `d` values.
    pub fn row_bytes(self, d: usize) -> usize {
        match self {
            CacheType::F32 => 4 * d,
            CacheType::Bf16 | CacheType::F16 => 2 * d,
            CacheType::Int8 => d + 8,
        }
    }
}

impl std::str::FromStr for CacheType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| "the types are f32, bf16, f16 and int8".to_owned())
    }
}

/// `[1, h, capacity, d]`.
#[allow(clippy::large_enum_variant)] // two for each layer
enum Held {
    Float(Tensor<4>),
    /// Words of four numbers `[1, h, capacity, d/4]`, and slopes and offsets `[1, h, capacity, 2]`.
    Bits8(Tensor<4, Int>, Tensor<4>),
}

/// Keys and values of a layer.
pub struct LayerCache {
    k: Held,
    v: Held,
    /// Tokens there is room for.
    capacity: usize,
    /// Tokens held: the first `sinks` of the sequence, and the last ones.
    held: usize,
    /// First tokens that are never dropped.
    sinks: usize,
    /// Tokens that were dropped after the sinks.
    dropped: usize,
    /// Tokens that a query sees beside the sinks; all if there is no window.
    window: Option<usize>,
}

impl LayerCache {
    /// An empty cache with room for sequences of `tokens`, fed at most `fed` at once.
    pub fn new(
        [heads, d]: [usize; 2],
        [tokens, fed]: [usize; 2],
        window: Option<usize>,
        sinks: usize,
        kind: CacheType,
        device: &Device,
    ) -> Self {
        let capacity = Self::room(tokens, fed, window, sinks);
        let held = || Held::new([1, heads, capacity, d], kind, device);
        LayerCache {
            k: held(),
            v: held(),
            capacity,
            held: 0,
            sinks,
            dropped: 0,
            window,
        }
    }

    /// Tokens that a cache for these sequences has room for. A window has room for itself once more, so that what
    /// stays is moved to the front once in a window's length and not at every token.
    pub fn room(tokens: usize, fed: usize, window: Option<usize>, sinks: usize) -> usize {
        match window {
            Some(window) => tokens.min(
                window
                    .saturating_mul(2)
                    .saturating_add(sinks)
                    .saturating_add(fed),
            ),
            None => tokens,
        }
    }

    /// Tokens of the sequence so far.
    pub fn tokens(&self) -> usize {
        self.held + self.dropped
    }

    /// Whether every token of the sequence is still held.
    pub fn is_whole(&self) -> bool {
        self.dropped == 0
    }

    /// Forgets all but the first `tokens`; nothing may have been dropped, unless all are forgotten.
    pub fn truncate(&mut self, tokens: usize) {
        assert!(
            self.is_whole() || tokens == 0,
            "dropped tokens cannot come back"
        );
        self.held = self.held.min(tokens);
        self.dropped = 0;
    }

    /// Appends keys, not rotated, and values `[1, h, n, d]`.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) {
        let n = k.dims()[2];
        if self.held + n > self.capacity {
            self.drop_unseen();
        }
        assert!(
            self.held + n <= self.capacity,
            "the cache has room for {} tokens",
            self.capacity
        );
        let slots = self.held..self.held + n;
        self.k.write(slots.clone(), k);
        self.v.write(slots, v);
        self.held += n;
    }

    /// Drops what the next query does not see, nor any after it.
    fn drop_unseen(&mut self) {
        let Some(window) = self.window else { return };
        // The next query sees itself and `window - 1` before it.
        let stay = (window - 1).min(self.held.saturating_sub(self.sinks));
        let from = self.held - stay;
        let gone = from.saturating_sub(self.sinks);
        if gone > 0 {
            self.k.shift(from..self.held, self.sinks);
            self.v.shift(from..self.held, self.sinks);
            self.dropped += gone;
            self.held -= gone;
        }
    }

    /// How far the slots of a band's keys stand before their places in the sequence.
    fn shift_of(&self, band: &Band) -> usize {
        let last = band.keys.last().map_or(0, |keys| keys.end as usize);
        if last <= self.sinks {
            return 0;
        }
        let first = band.keys.first().map_or(0, |keys| keys.start as usize);
        assert!(
            self.dropped == 0 || first >= self.sinks + self.dropped,
            "key {first} is asked for, {} were dropped after the first {}",
            self.dropped,
            self.sinks
        );
        self.dropped
    }

    /// Attention of un-rotated `q` `[1, h, n, d]`, the last `n` tokens of the sequence, as the plan for these queries
    /// says; returns `[1, h, n, d]`.
    pub fn attend(&self, q: Tensor<4>, plan: &LayerPlan, tables: &mut KeyTables) -> Tensor<4> {
        let device = tables.device.clone();
        let mut merged: Option<(Tensor<4>, Tensor<3>)> = None;
        for band in &plan.bands {
            let shift = self.shift_of(band);
            // Only as many slots as the last query sees.
            let slots = band.keys.last().map_or(0, |keys| keys.end as usize) - shift;
            if slots == 0 {
                continue;
            }
            let q_table = TableSpec::queries(band, plan).tensors(&device);
            let k_table = tables.of(band, shift..shift + slots);
            let keys = key_ranges(band, shift, &device);
            let q = q.clone();
            let part = match (&self.k, &self.v) {
                (Held::Float(k), Held::Float(v)) => {
                    let (k, v) = (first(k, slots), first(v, slots));
                    ops::rotary_attention(q, q_table, k, k_table, v, keys)
                }
                (Held::Bits8(k, k_line), Held::Bits8(v, v_line)) => {
                    let k = (first_int(k, slots), first(k_line, slots));
                    let v = (first_int(v, slots), first(v_line, slots));
                    ops::rotary_attention_8bit(q, q_table, k, k_table, v, keys)
                }
                _ => unreachable!("keys and values are of one type"),
            };
            merged = Some(match merged {
                Some(sum) => ops::merge(sum, part),
                None => part,
            });
        }
        merged.expect("a plan has at least one band").0
    }
}

fn first(x: &Tensor<4>, slots: usize) -> Tensor<4> {
    x.clone().narrow(2, 0, slots)
}

fn first_int(x: &Tensor<4, Int>, slots: usize) -> Tensor<4, Int> {
    x.clone().narrow(2, 0, slots)
}

impl Held {
    fn new(shape: [usize; 4], kind: CacheType, device: &Device) -> Self {
        let floats = |dtype| Held::Float(Tensor::zeros(shape, (device, dtype)));
        match kind {
            CacheType::F32 => floats(DType::F32),
            CacheType::Bf16 => floats(DType::BF16),
            CacheType::F16 => floats(DType::F16),
            CacheType::Int8 => {
                let [b, h, capacity, d] = shape;
                Held::Bits8(
                    Tensor::zeros([b, h, capacity, d / 4], (device, DType::I32)),
                    Tensor::zeros([b, h, capacity, 2], (device, DType::F32)),
                )
            }
        }
    }

    fn write(&mut self, slots: Range<usize>, x: Tensor<4>) {
        match self {
            Held::Float(held) => {
                let dtype = held.dtype();
                assign(held, slots, x.cast(dtype));
            }
            Held::Bits8(held, lines) => {
                let (words, line) = to_8bit(x);
                let [_, h, _, width] = held.dims();
                let ranges = [0..1, 0..h, slots.clone(), 0..width];
                *held = take_int(held).slice_assign(ranges, words);
                assign(lines, slots, line);
            }
        }
    }

    /// Moves slots to the front, to `to`.
    fn shift(&mut self, from: Range<usize>, to: usize) {
        if from.is_empty() {
            return;
        }
        let slots = to..to + from.len();
        match self {
            Held::Float(held) => {
                let stay = held.clone().narrow(2, from.start, from.len());
                assign(held, slots, stay);
            }
            Held::Bits8(held, lines) => {
                let stay = held.clone().narrow(2, from.start, from.len());
                let [_, h, _, width] = held.dims();
                *held = take_int(held).slice_assign([0..1, 0..h, slots.clone(), 0..width], stay);
                let stay = lines.clone().narrow(2, from.start, from.len());
                assign(lines, slots, stay);
            }
        }
    }
}

/// Writes slots in place: burn does so where a tensor has one owner.
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

/// Each row of `d` as whole numbers from 0 to 255 between its smallest and its largest value, four in a word, with slope
/// and offset.
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

/// Rotary tables of keys, kept from pass to pass: they grow with the sequence.
pub struct KeyTables {
    tables: Vec<KeyTable>,
    capacity: usize,
    device: Device,
}

struct KeyTable {
    spectrum: Spectrum,
    position: Vec<f64>,
    /// `[capacity, d/2]`, the first `position.len()` rows filled.
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl KeyTables {
    /// No tables yet; sequences have at most `capacity` tokens.
    pub fn new(capacity: usize, device: &Device) -> Self {
        KeyTables {
            tables: Vec::new(),
            capacity,
            device: device.clone(),
        }
    }

    /// Forgets tables that none of the plans uses.
    pub fn keep(&mut self, plans: &Plans) {
        self.tables.retain(|table| {
            let mut bands = plans.distinct().iter().flat_map(|plan| &plan.bands);
            bands.any(|band| table.fits(band))
        });
    }

    /// The rows of a band's keys.
    fn of(&mut self, band: &Band, rows: Range<usize>) -> (Tensor<2>, Tensor<2>) {
        let known = self.tables.iter().position(|table| table.fits(band));
        let index = known.unwrap_or_else(|| {
            let shape = [self.capacity, band.spectrum.inv_freq.len()];
            let empty = || Tensor::zeros(shape, (&self.device, DType::F32));
            self.tables.push(KeyTable {
                spectrum: band.spectrum.clone(),
                position: Vec::new(),
                cos: empty(),
                sin: empty(),
            });
            self.tables.len() - 1
        });
        let table = &mut self.tables[index];
        table.grow(&band.k_position, &self.device);
        let half = band.spectrum.inv_freq.len();
        let part = |x: &Tensor<2>| x.clone().slice([rows.clone(), 0..half]);
        (part(&table.cos), part(&table.sin))
    }
}

impl KeyTable {
    fn fits(&self, band: &Band) -> bool {
        let common = self.position.len().min(band.k_position.len());
        self.spectrum == band.spectrum && self.position[..common] == band.k_position[..common]
    }

    fn grow(&mut self, position: &[f64], device: &Device) {
        let known = self.position.len();
        if position.len() <= known {
            return;
        }
        let (cos, sin) = TableSpec::keys(&position[known..], &self.spectrum).tensors(device);
        let rows = known..position.len();
        for (table, new) in [(&mut self.cos, cos), (&mut self.sin, sin)] {
            let half = table.dims()[1];
            let empty = Tensor::zeros([0, 0], (device, DType::F32));
            let owned = std::mem::replace(table, empty);
            *table = owned.slice_assign([rows.clone(), 0..half], new);
        }
        self.position.extend_from_slice(&position[known..]);
    }
}
