//! Keys and values of one layer that stay from pass to pass, and attention over them.
//!
//! Keys are stored as they were before rotation and rotated when they are read, so that a method
//! may give them other positions or frequencies later. Tokens that no later query sees are dropped.

mod key_tables;
mod slots;
mod types;

use burn::tensor::{Device, Int, Tensor};
use longspan_attention::{Band, Kept, LayerPlan};

pub use key_tables::KeyTables;
pub use types::CacheType;

use crate::ops;
use crate::plan::{TableSpec, key_ranges};
use slots::Slots;

/// Keys and values of a layer.
pub struct LayerCache {
    k: Slots,
    v: Slots,
    /// Tokens there is room for.
    capacity: usize,
    /// Tokens stored: the first `kept.first` of the sequence, and the last ones.
    stored: usize,
    /// Tokens dropped after the first `kept.first`.
    dropped: usize,
    /// Tokens that later queries see.
    kept: Kept,
}

impl LayerCache {
    /// An empty cache with room for sequences of `tokens`, fed at most `fed` at once.
    pub fn new(
        [heads, d]: [usize; 2],
        [tokens, fed]: [usize; 2],
        kept: Kept,
        kind: CacheType,
        device: &Device,
    ) -> Self {
        let capacity = Self::room(tokens, fed, kept);
        let slots = || Slots::new([1, heads, capacity, d], kind, device);
        LayerCache {
            k: slots(),
            v: slots(),
            capacity,
            stored: 0,
            dropped: 0,
            kept,
        }
    }

    /// Tokens that a cache for such sequences has room for. It has room for the last tokens twice,
    /// so that they are moved to the front once in as many tokens, not with every token.
    pub fn room(tokens: usize, fed: usize, kept: Kept) -> usize {
        match kept.last {
            Some(last) => tokens.min(
                last.saturating_mul(2)
                    .saturating_add(kept.first)
                    .saturating_add(fed),
            ),
            None => tokens,
        }
    }

    /// Tokens of the sequence so far.
    pub fn tokens(&self) -> usize {
        self.stored + self.dropped
    }

    /// True if no token of the sequence has been dropped.
    pub fn is_whole(&self) -> bool {
        self.dropped == 0
    }

    /// Forgets all but the first `tokens`; nothing may have been dropped, unless all are forgotten.
    pub fn truncate(&mut self, tokens: usize) {
        assert!(
            self.is_whole() || tokens == 0,
            "dropped tokens cannot come back"
        );
        self.stored = self.stored.min(tokens);
        self.dropped = 0;
    }

    /// Appends un-rotated keys and values `[1, h, n, d]`.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) {
        let n = k.dims()[2];
        if self.stored + n > self.capacity {
            self.drop_unseen();
        }
        assert!(
            self.stored + n <= self.capacity,
            "the cache has room for {} tokens",
            self.capacity
        );
        let slots = self.stored..self.stored + n;
        self.k.write(slots.clone(), k);
        self.v.write(slots, v);
        self.stored += n;
    }

    /// Drops the tokens that neither the next query sees nor any after it.
    fn drop_unseen(&mut self) {
        let Some(last) = self.kept.last else { return };
        // The next query is itself one of the last.
        let stay = last
            .saturating_sub(1)
            .min(self.stored.saturating_sub(self.kept.first));
        let from = self.stored - stay;
        let gone = from.saturating_sub(self.kept.first);
        if gone > 0 {
            self.k.shift(from..self.stored, self.kept.first);
            self.v.shift(from..self.stored, self.kept.first);
            self.dropped += gone;
            self.stored -= gone;
        }
    }

    /// The distance from a slot to the place of its token in the sequence, for the keys of a band.
    fn shift_of(&self, band: &Band) -> usize {
        let last = band.keys.last().map_or(0, |keys| keys.end as usize);
        if last <= self.kept.first {
            return 0;
        }
        let first = band.keys.first().map_or(0, |keys| keys.start as usize);
        assert!(
            self.dropped == 0 || first >= self.kept.first + self.dropped,
            "key {first}: {} tokens were dropped after the first {}",
            self.dropped,
            self.kept.first
        );
        self.dropped
    }

    /// Attention of un-rotated `q` `[1, h, n, d]`, the last `n` tokens of the sequence, by the plan
    /// for these queries; returns `[1, h, n, d]`.
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
                (Slots::Float(k), Slots::Float(v)) => {
                    let (k, v) = (first(k, slots), first(v, slots));
                    ops::rotary_attention(q, q_table, k, k_table, v, keys)
                }
                (Slots::Bits8(k, k_line), Slots::Bits8(v, v_line)) => {
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
