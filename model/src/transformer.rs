//! The model: embedding, layers, head; one pass scores a sequence.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::{Method, PlanError, Plans};
use longspan_kernels::{PlanTensors, ops};
use longspan_rope::Length;

use crate::block::{Block, MLP_ROWS};
use crate::sample::largest;
use crate::source::{CheckpointSource, Parameters, Source};
use crate::tensors::Role;
use crate::{Architecture, Checkpoint, ModelError, WeightType};

/// How many sequences of `tokens` tokens go through a pass together: as many as fill the
/// feed-forward layer's block of rows. The shortest sequences go alone, because kernels add up few
/// rows in another order than many, and a result must not depend on which sequences share the pass.
pub fn sequences_together(tokens: usize) -> usize {
    if tokens <= longspan_kernels::FEW_ROWS {
        1
    } else {
        (MLP_ROWS / tokens).max(1)
    }
}

/// A decoder-only transformer with rotary positions. Matrices are `[outputs, inputs]`.
#[derive(Module, Debug)]
pub struct Transformer {
    embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: Param<Tensor<1>>,
    /// `None`: the embedding serves as the head.
    head: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: Arc<Architecture>,
    #[module(skip)]
    info: Arc<Info>,
}

/// Identity, types and device of a model.
#[derive(Clone, Debug)]
struct Info {
    digest: String,
    /// Name of the type of the layers' matrices.
    matrices: &'static str,
    activations: WeightType,
    device: Device,
    device_kind: String,
}

/// The plans of a model's layers on its device, for passes of one length.
pub struct PassPlan {
    layers: Vec<Arc<PlanTensors>>,
    tokens: usize,
}

impl PassPlan {
    /// Puts plans of `tokens` queries on a device.
    pub(crate) fn new(plans: &Plans, tokens: usize, device: &Device) -> Self {
        PassPlan {
            layers: PlanTensors::for_layers(plans, device),
            tokens,
        }
    }
}

impl Transformer {
    /// Loads a folder. Matrices are held in `dtype`, or in the type of the files if it is `None`,
    /// as it must be for packed matrices; norms and biases are held in f32.
    ///
    /// # Errors
    /// The folder, a file or a value is not as it should be; the device does not support the type.
    pub fn load(
        folder: &Path,
        dtype: Option<WeightType>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(folder)?;
        Self::from_checkpoint(checkpoint, dtype, device)
    }

    /// [`Transformer::load`] from an opened folder.
    ///
    /// # Errors
    /// A value is not as it should be; the device does not support the type.
    pub fn from_checkpoint(
        mut checkpoint: Checkpoint,
        dtype: Option<WeightType>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut dtype = checkpoint.matrix_type(dtype)?;
        if checkpoint.config.quantization.is_some() {
            dtype = checkpoint.type_on(dtype, device);
        }
        let config = checkpoint.config.clone();
        let types = [DType::F32, dtype.into()];
        let supported = longspan_kernels::supported(device, config.head_dim, &types);
        supported.map_err(|reason| ModelError::Device {
            what: "weights",
            dtype: dtype.name(),
            reason,
        })?;
        let mut source = CheckpointSource {
            checkpoint: &mut checkpoint,
            dtype,
            device,
        };
        let mut model = Self::assemble(config, &mut source, dtype, device)?;
        // The digest covers the tensors read so far, so it is taken last.
        Arc::make_mut(&mut model.info).digest = checkpoint.digest();
        Ok(model)
    }

    /// Makes a model from the parameters of a source.
    pub(crate) fn assemble(
        config: Architecture,
        source: &mut impl Source,
        dtype: WeightType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut parameters = Parameters::new(&config, source);
        let embedding = parameters.next(Role::Embedding)?;
        let blocks = (0..config.layers)
            .map(|_| Block::assemble(&mut parameters))
            .collect::<Result<_, _>>()?;
        let norm = parameters.next(Role::FinalNorm)?;
        let head = parameters.optional(Role::Head)?;
        let info = Info {
            digest: String::new(),
            matrices: match config.quantization {
                Some(quantization) => quantization.name(),
                None => dtype.name(),
            },
            activations: WeightType::F32,
            device: device.clone(),
            device_kind: longspan_kernels::device_kind(device),
        };
        Ok(Transformer {
            embedding,
            blocks,
            norm,
            head,
            config: Arc::new(config),
            info: Arc::new(info),
        })
    }

    /// The model's sizes.
    pub fn config(&self) -> &Architecture {
        &self.config
    }

    /// Digest (blake3, hexadecimal) of the configuration and of all tensors of the checkpoint.
    pub fn digest(&self) -> &str {
        &self.info.digest
    }

    /// Sets the type of the activations; matrix instructions of GPUs ask for 16 bits. Norms,
    /// softmax, sums and losses stay in f32, and matrices of another type are converted for each
    /// product.
    ///
    /// # Errors
    /// The device does not compute in the type; the CPU computes in f32 only.
    pub fn with_activations(mut self, activations: WeightType) -> Result<Self, ModelError> {
        let d = self.config.head_dim;
        let supported = longspan_kernels::supported(&self.info.device, d, &[activations.into()]);
        supported.map_err(|reason| ModelError::Device {
            what: "activations",
            dtype: activations.name(),
            reason,
        })?;
        Arc::make_mut(&mut self.info).activations = activations;
        Ok(self)
    }

    /// The types that results of this model depend on: that of the layers' matrices, and that of
    /// the activations if it is not f32.
    pub fn types(&self) -> String {
        match self.info.activations {
            WeightType::F32 => self.info.matrices.to_owned(),
            other => format!("{}, activations {}", self.info.matrices, other.name()),
        }
    }

    /// `cpu`, or a GPU runtime and its compiler, such as `cuda` or `wgpu<wgsl>`.
    pub fn device_kind(&self) -> &str {
        &self.info.device_kind
    }

    /// Plans passes of `length.total` tokens under a method.
    ///
    /// # Errors
    /// The method does not fit the model.
    pub fn plan(&self, method: &Method, length: Length) -> Result<PassPlan, PlanError> {
        let plans = method.plan(&self.config.geometry(), length)?;
        Ok(PassPlan::new(&plans, length.total, &self.info.device))
    }

    /// Negative log likelihood, in nats, of tokens `1..n` of a sequence (`n` = the plan's length),
    /// each given all tokens before it: `n - 1` values. `ids` may hold several sequences, one after
    /// the other, and so does the result; no sequence affects another's values.
    ///
    /// # Errors
    /// [`ModelError::Token`] for an id outside the vocabulary.
    pub fn nll(&self, ids: &[u32], plan: &PassPlan) -> Result<Vec<f32>, ModelError> {
        let hidden = self.hidden(ids, plan)?;
        if plan.tokens < 2 {
            return Ok(Vec::new());
        }
        let [rows, width] = hidden.dims();
        let loss = self.loss(hidden.slice([0..rows - 1, 0..width]), &ids[1..]);
        let loss: Vec<f32> = longspan_kernels::read(loss)?;
        // The last token of a sequence does not predict the first of the next.
        let sequences = loss.chunks(plan.tokens);
        Ok(sequences
            .flat_map(|loss| &loss[..plan.tokens - 1])
            .copied()
            .collect())
    }

    /// The most likely token after each position in `rows` of a pass over `ids`, the lowest id
    /// among equals; `None` where a logit is not finite. Rows count through all sequences of `ids`,
    /// as in [`nll`](Transformer::nll). All logits of the rows are held at once, so `rows` should
    /// be short.
    ///
    /// # Errors
    /// [`ModelError::Token`] for an id outside the vocabulary.
    pub fn most_likely(
        &self,
        ids: &[u32],
        plan: &PassPlan,
        rows: Range<usize>,
    ) -> Result<Vec<Option<u32>>, ModelError> {
        let hidden = self.hidden(ids, plan)?;
        let width = self.config.hidden_size;
        let logits: Vec<f32> = longspan_kernels::read(self.logits(hidden.slice([rows, 0..width])))?;
        Ok(logits.chunks(self.config.vocab_size).map(largest).collect())
    }

    /// Negative log likelihood `[n]`, nats, of `targets`, given hidden states `[n, hidden_size]`.
    pub fn loss(&self, hidden: Tensor<2>, targets: &[u32]) -> Tensor<1> {
        ops::token_loss(hidden, self.head(), self.ids(targets))
    }

    /// Hidden states `[n, hidden_size]` after the last norm, the input of the LM head; of several
    /// sequences one after the other, as in [`nll`](Transformer::nll).
    ///
    /// # Errors
    /// [`ModelError::Token`] for an id outside the vocabulary.
    pub fn hidden(&self, ids: &[u32], plan: &PassPlan) -> Result<Tensor<2>, ModelError> {
        assert!(
            ids.len().is_multiple_of(plan.tokens),
            "a plan is made for one length"
        );
        self.hidden_with(ids, plan.tokens, |layer, q, k, v| {
            ops::banded_attention(q, k, v, &plan.layers[layer])
        })
    }

    /// [`Transformer::hidden`] of sequences of `n` tokens, with attention done by `attend`: it is
    /// given the layer and un-rotated `q`, `k` and `v` `[b, h, n, d]`.
    pub(crate) fn hidden_with(
        &self,
        ids: &[u32],
        n: usize,
        mut attend: impl FnMut(usize, Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<2>, ModelError> {
        self.check(ids)?;
        let embedded = self.embedding.val().select(0, self.ids(ids));
        let mut hidden = embedded.cast(DType::from(self.info.activations));
        for (layer, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(hidden, n, &self.config, |q, k, v| attend(layer, q, k, v));
        }
        Ok(ops::rms_norm(hidden, self.norm.val(), self.config.epsilon))
    }

    /// Checks that all ids are in the vocabulary.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), ModelError> {
        let vocabulary = self.config.vocab_size;
        if let Some(position) = ids.iter().position(|&id| id as usize >= vocabulary) {
            return Err(ModelError::Token {
                id: ids[position],
                position,
                vocabulary,
            });
        }
        Ok(())
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.info.device.clone()
    }

    /// A copy without gradients of a model in training.
    pub(crate) fn evaluated(&self) -> Transformer {
        let mut model = self.valid();
        let device = self.info.device.clone().inner();
        Arc::make_mut(&mut model.info).device = device;
        model
    }

    /// Logits `[n, vocab_size]`, f32, of hidden states `[n, hidden_size]`; meant for a few rows.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        ops::linear(hidden, self.head()).cast(DType::F32)
    }

    fn head(&self) -> Tensor<2> {
        self.head.as_ref().unwrap_or(&self.embedding).val()
    }

    fn ids(&self, ids: &[u32]) -> Tensor<1, Int> {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let len = ids.len();
        Tensor::from_data(TensorData::new(ids, [len]), (&self.info.device, DType::I32))
    }
}
