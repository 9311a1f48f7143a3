//! Reads the packed matrices of a GPTQ checkpoint (arXiv 2210.17323, in AutoGPTQ's layout).
//!
//! In the file a matrix is packed along its inputs, lowest bits first, and neighbouring words
//! belong to different outputs. In memory neighbouring words belong to the same output, which is
//! the order the kernels read, and the inputs of a group are neighbours. The matrix as a whole is
//! never unpacked.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_kernels::PackedWeight;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::linear::QuantizedMatrix;
use crate::quantization::Quantization;
use crate::{Checkpoint, ModelError, WeightType};

/// Outputs that are repacked together: one cache line.
const OUTPUTS: usize = 16;

impl Checkpoint {
    /// Reads a packed matrix by its name without `.qweight`. `has_bias`: the model itself has a
    /// tensor `.bias` of this name, which is not read here.
    ///
    /// # Errors
    /// A value that is not finite; a group that does not exist or has a wrong number of inputs.
    pub(crate) fn packed(
        &mut self,
        matrix: &str,
        quantization: Quantization,
        has_bias: bool,
        device: &Device,
    ) -> Result<QuantizedMatrix, ModelError> {
        let bits = quantization.bits;
        let name = |part: &str| format!("{matrix}.{part}");
        let (shape, qweight) = self.integers(&name("qweight"))?;
        let (inputs, outputs) = (shape[0] * 32 / bits, shape[1]);
        let (_, qzeros) = self.integers(&name("qzeros"))?;
        let scales = self.scales(&name("scales"), device)?;
        let order = if self.has(&name("g_idx")) {
            self.order(&name("g_idx"), quantization, inputs)?
        } else {
            None
        };
        let words = words(&qweight, outputs, bits, order.as_deref());
        let zeros = zeros(&qzeros, outputs, quantization.groups(inputs), bits);
        let weight = PackedWeight {
            words: integer_tensor(words, outputs, device),
            zeros: integer_tensor(zeros, outputs, device),
            scales,
            bits,
            group: quantization.group(inputs),
            order: order.map(|order| {
                let data = TensorData::new(order, [inputs]);
                Tensor::from_data(data, (device, DType::I32))
            }),
        };
        let bias = if has_bias {
            None
        } else {
            self.packing_bias(&name("bias"), device)?
        };
        Ok(QuantizedMatrix { weight, bias })
    }

    /// Scales `[o, groups]` from `[groups, o]` in the file; f16 if they are stored in it and the
    /// device supports it, else f32.
    fn scales(&mut self, name: &str, device: &Device) -> Result<Tensor<2>, ModelError> {
        let dtype = match self.type_of(name)? {
            Dtype::F16 => self.type_on(WeightType::F16, device),
            _ => WeightType::F32,
        };
        let stored: Tensor<2> = self.tensor(name, dtype, device)?;
        // Through the host, so that the result is contiguous and not a view.
        let data = stored.transpose().into_data();
        Ok(Tensor::from_data(data, (device, dtype.into())))
    }

    /// The bias that GPTQ gives to a matrix without one; `None` if it is absent or zero.
    fn packing_bias(
        &mut self,
        name: &str,
        device: &Device,
    ) -> Result<Option<Tensor<1>>, ModelError> {
        if !self.has(name) {
            return Ok(None);
        }
        let bias: Tensor<1> = self.tensor(name, WeightType::F32, device)?;
        let zero = bias.to_data().iter::<f32>().all(|x| x == 0.0);
        Ok((!zero).then_some(bias))
    }

    /// The inputs sorted by group; `None` if they are sorted in the file.
    fn order(
        &mut self,
        name: &str,
        quantization: Quantization,
        inputs: usize,
    ) -> Result<Option<Vec<i32>>, ModelError> {
        let (_, group_of) = self.integers(name)?;
        let (group, groups) = (quantization.group(inputs), quantization.groups(inputs));
        let error = |message: String| ModelError::Packing {
            path: self.path_of(name),
            tensor: name.to_owned(),
            message,
        };
        let outside = |&g: &i32| g < 0 || g as usize >= groups;
        if let Some(index) = group_of.iter().position(outside) {
            let found = group_of[index];
            let message = format!(
                "holds {found} at flat index {index}, but {inputs} inputs in groups of {group} are {groups} groups"
            );
            return Err(error(message));
        }
        let mut order: Vec<i32> = (0..inputs as i32).collect();
        order.sort_by_key(|&input| group_of[input as usize]);
        for (g, members) in order.chunks(group).enumerate() {
            let is_its_own = |&input: &i32| group_of[input as usize] as usize == g;
            if !members.iter().all(is_its_own) {
                let found = group_of
                    .iter()
                    .filter(|&&other| other as usize == g)
                    .count();
                let expected = members.len();
                let message = format!(
                    "puts {found} inputs in group {g}, but config.json's group_size implies {expected}"
                );
                return Err(error(message));
            }
        }
        let in_place = order
            .iter()
            .enumerate()
            .all(|(i, &input)| i as i32 == input);
        Ok((!in_place).then_some(order))
    }
}

/// Repacks `[i * bits / 32, o]` to `[o, i * bits / 32]`, with the inputs in `order`.
fn words(stored: &[i32], outputs: usize, bits: usize, order: Option<&[i32]>) -> Vec<i32> {
    let width = stored.len() / outputs;
    let values = 32 / bits;
    let mask = (1u32 << bits) - 1;
    let mut words = vec![0i32; stored.len()];
    let tasks = words.par_chunks_mut(OUTPUTS * width).enumerate();
    tasks.for_each(|(task, words)| {
        let block = task * OUTPUTS;
        let rows = words.len() / width;
        for w in 0..width {
            let Some(order) = order else {
                for row in 0..rows {
                    words[row * width + w] = stored[w * outputs + block + row];
                }
                continue;
            };
            for (k, &input) in order[w * values..(w + 1) * values].iter().enumerate() {
                let (word, place) = (input as usize / values, input as usize % values);
                for row in 0..rows {
                    let value = stored[word * outputs + block + row] as u32 >> (bits * place);
                    words[row * width + w] |= ((value & mask) << (bits * k)) as i32;
                }
            }
        }
    });
    words
}

/// Repacks zeros `[groups, o * bits / 32]`, packed along the outputs, to `[o, groups * bits / 32]`,
/// packed along the groups. The file holds each zero minus 1.
fn zeros(stored: &[i32], outputs: usize, groups: usize, bits: usize) -> Vec<i32> {
    let (values, mask) = (32 / bits, (1u32 << bits) - 1);
    let (from, to) = (outputs / values, groups.div_ceil(values));
    let mut zeros = vec![0i32; outputs * to];
    for (o, row) in zeros.chunks_exact_mut(to).enumerate() {
        for g in 0..groups {
            let word = stored[g * from + o / values] as u32;
            // A zero of 0 is stored as the largest value.
            let zero = (word >> (bits * (o % values))).wrapping_add(1) & mask;
            row[g / values] |= (zero << (bits * (g % values))) as i32;
        }
    }
    zeros
}

fn integer_tensor(values: Vec<i32>, rows: usize, device: &Device) -> Tensor<2, Int> {
    let shape = [rows, values.len() / rows];
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}
