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
/// They are numbered in the order of the forward pass, so that an optimiser's state saved by another
/// process refers to the same ones.
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
