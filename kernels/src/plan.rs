//! A plan as tensors, the form in which kernels take it.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::{Band, LayerPlan, Plans};
use longspan_rope::Spectrum;
use rayon::prelude::*;

/// `cos` and `sin` `[positions, d/2]` in f32.
pub(crate) type Table = (Tensor<2>, Tensor<2>);

/// A [`LayerPlan`] on a device: rotary tables and key ranges.
#[derive(Clone, Debug)]
pub struct PlanTensors {
    /// Shared by all layers of a model, equal ones stored once.
    pub(crate) tables: Arc<Vec<Table>>,
    pub(crate) bands: Vec<BandTensors>,
}

#[derive(Clone, Debug)]
pub(crate) struct BandTensors {
    /// Index of the table that rotates the queries; the query scale is part of it.
    pub q_table: usize,
    /// Index of the table that rotates the keys.
    pub k_table: usize,
    /// `[n, 2]`, i32.
    pub keys: Tensor<2, Int>,
}

/// The definition of a table: row `i` holds `scale[i] * mscale * cos(position[i] * inv_freq)`, and
/// sin.
#[derive(PartialEq)]
pub(crate) struct TableSpec<'a> {
    position: &'a [f64],
    spectrum: &'a Spectrum,
    scale: Option<&'a [f64]>,
}

impl<'a> TableSpec<'a> {
    /// The table of a band's queries.
    pub fn queries(band: &'a Band, plan: &'a LayerPlan) -> Self {
        let scaled = plan.query_scale.iter().any(|&scale| scale != 1.0);
        TableSpec {
            position: &band.q_position,
            spectrum: &band.spectrum,
            scale: scaled.then_some(plan.query_scale.as_slice()),
        }
    }

    /// The table of keys at some positions.
    pub fn keys(position: &'a [f64], spectrum: &'a Spectrum) -> Self {
        TableSpec {
            position,
            spectrum,
            scale: None,
        }
    }

    /// Angles, cos and sin in f64, stored in f32.
    pub fn tensors(&self, device: &Device) -> Table {
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
    /// Puts the plans of a model's layers on a device. Layers that share a plan share its tensors,
    /// and all share the rotary tables.
    ///
    /// # Panics
    /// If the key ranges of a band go back from one query to the next.
    pub fn for_layers(plans: &Plans, device: &Device) -> Vec<Arc<PlanTensors>> {
        let mut specs: Vec<TableSpec> = Vec::new();
        let distinct: Vec<Vec<BandTensors>> = (plans.distinct().iter())
            .map(|plan| bands(plan, &mut specs, device))
            .collect();
        let tables: Arc<Vec<Table>> =
            Arc::new(specs.iter().map(|spec| spec.tensors(device)).collect());
        let distinct: Vec<Arc<PlanTensors>> = (distinct.into_iter())
            .map(|bands| {
                let tables = tables.clone();
                Arc::new(PlanTensors { tables, bands })
            })
            .collect();
        let of_layer = plans.of_layer().iter();
        of_layer.map(|&plan| distinct[plan].clone()).collect()
    }
}

/// The bands of one plan; their tables are appended to `specs` where they are new.
fn bands<'a>(
    plan: &'a LayerPlan,
    specs: &mut Vec<TableSpec<'a>>,
    device: &Device,
) -> Vec<BandTensors> {
    let mut tensors = Vec::with_capacity(plan.bands.len());
    for band in &plan.bands {
        let q_table = position_of(specs, TableSpec::queries(band, plan));
        let k_table = position_of(specs, TableSpec::keys(&band.k_position, &band.spectrum));
        tensors.push(BandTensors {
            q_table,
            k_table,
            keys: key_ranges(band, 0, device),
        });
    }
    tensors
}

/// The key ranges of a band `[n, 2]`, each moved `shift` keys to the front.
///
/// # Panics
/// If they go back from one query to the next.
pub(crate) fn key_ranges(band: &Band, shift: usize, device: &Device) -> Tensor<2, Int> {
    // Kernels take a block of queries to see the keys from its first query's first to its last
    // query's last.
    assert!(
        band.keys
            .windows(2)
            .all(|pair| pair[0].start <= pair[1].start && pair[0].end <= pair[1].end),
        "the key ranges of a band must not go back"
    );
    let moved = |key: u32| key as i32 - shift as i32;
    let keys: Vec<i32> = (band.keys.iter())
        .flat_map(|keys| [moved(keys.start), moved(keys.end)])
        .collect();
    let keys = TensorData::new(keys, [band.keys.len(), 2]);
    Tensor::from_data(keys, (device, DType::I32))
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
