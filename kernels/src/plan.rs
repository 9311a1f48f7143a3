//! A plan as tensors: what the kernels are given.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::LayerPlan;
use longspan_rope::Spectrum;
use rayon::prelude::*;

/// A [`LayerPlan`] on a device: rotary tables and key ranges.
#[derive(Clone, Debug)]
pub struct PlanTensors {
    /// `cos`, `sin` `[positions, d/2]` in f32; equal tables are stored once.
    pub(crate) tables: Vec<(Tensor<2>, Tensor<2>)>,
    pub(crate) bands: Vec<BandTensors>,
}

#[derive(Clone, Debug)]
pub(crate) struct BandTensors {
    /// Index of the table that turns the queries; LogN's scale is part of it.
    pub q_table: usize,
    /// Index of the table that turns the keys.
    pub k_table: usize,
    /// `[n, 2]`, i32.
    pub keys: Tensor<2, Int>,
}

/// What a table is made of: row `i` holds `scale[i] * mscale * cos(position[i] * inv_freq)`, and sin.
#[derive(PartialEq)]
struct TableSpec<'a> {
    position: &'a [f64],
    spectrum: &'a Spectrum,
    scale: Option<&'a [f64]>,
}

impl TableSpec<'_> {
    /// Angles, cos and sin in f64, stored in f32.
    fn tensors(&self, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let half = self.spectrum.inv_freq.len();
        let n = self.position.len();
        let (mut cos, mut sin) = (vec![0f32; n * half], vec![0f32; n * half]);
        cos.par_chunks_mut(half)
            .zip(sin.par_chunks_mut(half))
            .enumerate()
            .for_each(|(i, (cos, sin))| {
                let scale = self.spectrum.mscale * self.scale.map_or(1.0, |scale| scale[i]);
                for (c, freq) in self.spectrum.inv_freq.iter().enumerate() {
                    let (s, o) = (self.position[i] * freq).sin_cos();
                    cos[c] = (scale * o) as f32;
                    sin[c] = (scale * s) as f32;
                }
            });
        let tensor = |values: Vec<f32>| {
            Tensor::from_data(TensorData::new(values, [n, half]), (device, DType::F32))
        };
        (tensor(cos), tensor(sin))
    }
}

impl PlanTensors {
    /// Puts a plan on a device.
    pub fn new(plan: &LayerPlan, device: &Device) -> Self {
        let scaled = plan.query_scale.iter().any(|&scale| scale != 1.0);
        let mut specs: Vec<TableSpec> = Vec::new();
        let mut bands = Vec::with_capacity(plan.bands.len());
        for band in &plan.bands {
            let spec = |position, scale| TableSpec {
                position,
                spectrum: &band.spectrum,
                scale,
            };
            let query_scale = scaled.then_some(plan.query_scale.as_slice());
            let q_table = position_of(&mut specs, spec(&band.q_position, query_scale));
            let k_table = position_of(&mut specs, spec(&band.k_position, None));
            let keys: Vec<i32> = band
                .keys
                .iter()
                .flat_map(|keys| [keys.start as i32, keys.end as i32])
                .collect();
            let keys = TensorData::new(keys, [band.keys.len(), 2]);
            bands.push(BandTensors {
                q_table,
                k_table,
                keys: Tensor::from_data(keys, (device, DType::I32)),
            });
        }
        PlanTensors {
            tables: specs.iter().map(|spec| spec.tensors(device)).collect(),
            bands,
        }
    }
}

/// Index of `item` in `list`, appended if it is new.
fn position_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter()
        .position(|known| *known == item)
        .unwrap_or_else(|| {
            list.push(item);
            list.len() - 1
        })
}
