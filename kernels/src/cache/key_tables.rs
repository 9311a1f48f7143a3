//! Rotary tables of the keys in a cache.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};
use longspan_attention::{Band, Plans};
use longspan_rope::Spectrum;

use crate::plan::TableSpec;

/// Rotary tables of keys, kept from pass to pass: they grow with the sequence.
pub struct KeyTables {
    tables: Vec<KeyTable>,
    capacity: usize,
    pub(super) device: Device,
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
    pub(super) fn of(&mut self, band: &Band, rows: Range<usize>) -> (Tensor<2>, Tensor<2>) {
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
