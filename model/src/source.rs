//! Where the parameters of a model come from.

use std::iter::Peekable;
use std::vec::IntoIter;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::linear::{Linear, QuantizedMatrix};
use crate::tensors::{Parameter, Role};
use crate::{Architecture, Checkpoint, ModelError, WeightType};

/// Values of parameters. They are asked for in the order of [`Architecture::parameters`].
pub(crate) trait Source {
    /// The whole parameter as a tensor.
    fn tensor<const D: usize>(&mut self, parameter: &Parameter) -> Result<Tensor<D>, ModelError>;

    /// A matrix of a layer in packed form; `None` if it is not packed.
    fn packed(&mut self, _parameter: &Parameter) -> Result<Option<QuantizedMatrix>, ModelError> {
        Ok(None)
    }
}

/// Takes the parameters of a model from a source, one after the other.
///
/// They are numbered in the order of the forward pass, so that an optimiser's state saved by
/// another process refers to the same ones.
pub(crate) struct Parameters<'a, S> {
    source: &'a mut S,
    parameters: Peekable<IntoIter<Parameter>>,
    taken: u64,
}

impl<'a, S: Source> Parameters<'a, S> {
    pub fn new(architecture: &Architecture, source: &'a mut S) -> Self {
        Parameters {
            source,
            parameters: architecture.parameters().into_iter().peekable(),
            taken: 0,
        }
    }

    /// The next parameter if it has this role.
    pub fn optional<const D: usize>(
        &mut self,
        role: Role,
    ) -> Result<Option<Param<Tensor<D>>>, ModelError> {
        let next = self.parameters.next_if(|next| next.role == role);
        next.map(|parameter| self.take(&parameter)).transpose()
    }

    /// The next parameter, which has this role.
    pub fn next<const D: usize>(&mut self, role: Role) -> Result<Param<Tensor<D>>, ModelError> {
        let parameter = self.expect(role);
        self.take(&parameter)
    }

    /// The next parameter, a matrix with this role.
    pub fn linear(&mut self, role: Role) -> Result<Linear, ModelError> {
        let parameter = self.expect(role);
        Ok(match self.source.packed(&parameter)? {
            Some(matrix) => Linear::quantized(matrix),
            None => Linear::Dense(self.take(&parameter)?),
        })
    }

    fn expect(&mut self, role: Role) -> Parameter {
        let parameter = self.parameters.next_if(|next| next.role == role);
        parameter.expect("every model has this parameter here")
    }

    fn take<const D: usize>(
        &mut self,
        parameter: &Parameter,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        self.taken += 1;
        let id = ParamId::from(self.taken);
        Ok(Param::initialized(id, self.source.tensor(parameter)?))
    }
}

/// The files of a checkpoint: matrices in `dtype`, vectors in f32.
pub(crate) struct CheckpointSource<'a> {
    pub checkpoint: &'a mut Checkpoint,
    pub dtype: WeightType,
    pub device: &'a Device,
}

impl Source for CheckpointSource<'_> {
    fn tensor<const D: usize>(&mut self, parameter: &Parameter) -> Result<Tensor<D>, ModelError> {
        let dtype = if D == 2 { self.dtype } else { WeightType::F32 };
        let names = parameter.tensors.iter().map(|tensor| &tensor.0);
        let mut rows = names
            .map(|name| self.checkpoint.tensor(name, dtype, self.device))
            .collect::<Result<Vec<Tensor<D>>, ModelError>>()?;
        Ok(match rows.len() {
            1 => rows.remove(0),
            _ => Tensor::cat(rows, 0),
        })
    }

    fn packed(&mut self, parameter: &Parameter) -> Result<Option<QuantizedMatrix>, ModelError> {
        let config = &self.checkpoint.config;
        let Some(quantization) = config.quantization else {
            return Ok(None);
        };
        let has_bias = parameter.role == Role::Qkv && config.family.layout(config).qkv_bias;
        let [(name, _)] = parameter.tensors.as_slice() else {
            unreachable!("Architecture::check_packing refuses matrices in several tensors");
        };
        let matrix = name.trim_end_matches(".weight");
        let packed = self
            .checkpoint
            .packed(matrix, quantization, has_bias, self.device);
        packed.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use longspan_attention::Method;
    use longspan_rope::{Length, Variant};
    use serde_json::Value;

    use crate::families::{Layout, ModelFamily, QkvNames};
    use crate::{ConfigFields, Quantization, Transformer, shape, write_checkpoint};

    use super::*;

    /// Llama's names: q, k and v apart, no biases; the embedding is the head.
    struct Apart;

    impl Variant for Apart {
        fn name(&self) -> &'static str {
            "apart"
        }
    }

    impl ModelFamily for Apart {
        fn read(&self, _: &mut ConfigFields) -> Result<Architecture, ModelError> {
            unreachable!("not in the registry")
        }

        fn to_json(&self, _: &Architecture) -> Value {
            serde_json::json!({"model_type": "apart"})
        }

        fn layout(&self, _: &Architecture) -> Layout {
            Layout {
                embedding: "model.embed_tokens",
                layers: "model.layers",
                attention_norm: "input_layernorm",
                qkv: QkvNames::Separate(["q_proj", "k_proj", "v_proj"]),
                qkv_bias: false,
                output: "o_proj",
                mlp_norm: "post_attention_layernorm",
                up: "up_proj",
                gate: "gate_proj",
                down: "down_proj",
                norm: "model.norm",
                head: None,
            }
        }

        fn shapes(&self) -> &'static [(&'static str, Architecture)] {
            &[]
        }
    }

    fn apart() -> Architecture {
        Architecture {
            family: &Apart,
            layers: 2,
            ..shape("micro").unwrap()
        }
    }

    /// Values of every parameter; zero biases, and the embedding as head.
    fn values(architecture: &Architecture) -> Vec<Vec<f32>> {
        let mut values: Vec<Vec<f32>> = Vec::new();
        for parameter in architecture.parameters() {
            let len = parameter.shape().iter().product::<usize>();
            // Alike for both families.
            let seed = parameter.layer.map_or(0, |layer| layer + 1) * 16 + parameter.role as usize;
            let wave = |i: usize| (0.37 * (i * (seed + 3)) as f32).sin();
            values.push(match parameter.role {
                Role::Head => values[0].clone(),
                Role::QkvBias => vec![0.0; len],
                Role::AttentionNorm | Role::MlpNorm | Role::FinalNorm => vec![1.0; len],
                _ => (0..len).map(|i| 0.1 * wave(i)).collect(),
            });
        }
        values
    }

    #[test]
    fn separate_matrices_without_bias_and_tied_embeddings_are_the_same_model() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u32> = (0..40).map(|i| i * i % 464).collect();
        let qwen = Architecture {
            family: shape("micro").unwrap().family,
            ..apart()
        };
        let nll = [qwen, apart()].map(|architecture| {
            let folder = folder.path().join(architecture.family.name());
            let values = values(&architecture);
            write_checkpoint(&folder, &architecture, values, WeightType::F32).unwrap();
            let checkpoint = Checkpoint::with_config(&folder, architecture).unwrap();
            let model = Transformer::from_checkpoint(checkpoint, None, &Device::flex()).unwrap();
            let plan = model
                .plan(&Method::named("plain"), Length::whole(40))
                .unwrap();
            model.nll(&ids, &plan).unwrap()
        });
        assert!(nll[0].iter().any(|&x| (x - nll[0][0]).abs() > 0.1));
        assert_eq!(nll[0], nll[1]);
    }

    #[test]
    fn packed_matrices_apart_are_refused() {
        let mut architecture = apart();
        architecture.quantization = Some(Quantization {
            bits: 4,
            group_size: None,
            desc_act: false,
        });
        let error = architecture.check_packing("config.json".as_ref());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains("apart"),
            "{error}"
        );
    }
}
