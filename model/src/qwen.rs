//! The model: embedding, layers, head; one pass scores a sequence.

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::{Method, PlanError};
use longspan_kernels::{PlanTensors, ops};
use longspan_rope::Length;

use crate::dtype::held;
use crate::linear::{Linear, Packed};
use crate::{Checkpoint, ModelError, Architecture, WeightType};

/// Rows that go through the feed-forward layer together: its intermediate values are several times as
/// wide as the residual stream, and holding them for a whole context would dominate memory.
pub(crate) const MLP_ROWS: usize = 2048;

/// Sequences of so many tokens that go through a pass together. Short ones alone leave processors waiting, and matrices
/// would be prepared anew for few rows; the shortest are alone all the same, since few rows are added up in another order than
/// many, and a number must not depend on its neighbours.
pub fn sequences_together(tokens: usize) -> usize {
    match tokens <= longspan_kernels::FEW_ROWS {
        true => 1,
        false => (MLP_ROWS / tokens).max(1),
    }
}

/// A Qwen model. Matrices are `[outputs, inputs]`, as published.
#[derive(Module, Debug)]
pub struct Transformer {
    wte: Param<Tensor<2>>,
    h: Vec<Block>,
    ln_f: Param<Tensor<1>>,
    lm_head: Param<Tensor<2>>,
    #[module(skip)]
    config: Arc<Architecture>,
    #[module(skip)]
    info: Arc<Info>,
}

/// What identifies a loaded checkpoint.
#[derive(Debug)]
struct Info {
    digest: String,
    held: &'static str,
    activations: WeightType,
    device: Device,
    device_kind: String,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: Param<Tensor<1>>,
    c_attn: Linear,
    c_attn_bias: Param<Tensor<1>>,
    c_proj: Linear,
    ln_2: Param<Tensor<1>>,
    w1: Linear,
    w2: Linear,
    mlp_c_proj: Linear,
}

/// A method laid over a model for passes of one length: a plan for each layer, on the device.
pub struct PassPlan {
    pub(crate) layers: Vec<Arc<PlanTensors>>,
    pub(crate) tokens: usize,
}

impl Transformer {
    /// Loads a folder, with matrices held in `dtype`, or in the type of the files when it is `None`, which it has to be
    /// where matrices are packed. Norm weights and biases are held in f32.
    ///
    /// # Errors
    /// Whatever is wrong with the folder or a value in it.
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
    /// Whatever is wrong with a value in it.
    pub fn from_checkpoint(
        mut checkpoint: Checkpoint,
        dtype: Option<WeightType>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut dtype = checkpoint.matrix_type(dtype)?;
        if checkpoint.config.quantization.is_some() {
            dtype = checkpoint.known_type(dtype, device);
        }
        let config = checkpoint.config.clone();
        let types = [DType::F32, dtype.into()];
        longspan_kernels::supported(device, config.head_dim, &types).map_err(|reason| {
            let (what, dtype) = ("weights", dtype.name());
            ModelError::Device {
                what,
                dtype,
                reason,
            }
        })?;
        let mut source = Stored {
            checkpoint: &mut checkpoint,
            dtype,
            device,
        };
        let mut model = Self::assemble(config, &mut source, dtype, device)?;
        // Only now has every tensor been read.
        let info = Arc::get_mut(&mut model.info).expect("nobody else holds it yet");
        info.digest = checkpoint.digest();
        Ok(model)
    }

    /// A model of parameters that come one by one, in the order of [`Architecture::tensors`].
    pub(crate) fn assemble(
        config: Architecture,
        source: &mut impl Source,
        dtype: WeightType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut parameters = Parameters { source, taken: 0 };
        let wte = parameters.next("transformer.wte.weight")?;
        let h = (0..config.layers)
            .map(|layer| Block::assemble(&mut parameters, &format!("transformer.h.{layer}")))
            .collect::<Result<_, _>>()?;
        let ln_f = parameters.next("transformer.ln_f.weight")?;
        let lm_head = parameters.next("lm_head.weight")?;
        let info = Info {
            digest: String::new(),
            held: held(dtype, config.quantization),
            activations: WeightType::F32,
            device: device.clone(),
            device_kind: longspan_kernels::device_kind(device),
        };
        Ok(Transformer {
            wte,
            h,
            ln_f,
            lm_head,
            config: Arc::new(config),
            info: Arc::new(info),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &Architecture {
        &self.config
    }

    /// Digest (blake3, hexadecimal) of the configuration and all weights as stored.
    pub fn digest(&self) -> &str {
        &self.info.digest
    }

    /// Passes with activations of another type than f32, which a GPU's matrix instructions ask for. Norms, softmax, sums
    /// and losses stay in f32, and matrices of another type are converted for each product.
    ///
    /// # Errors
    /// A type that the device does not compute in; the CPU computes in f32 alone.
    pub fn with_activations(mut self, activations: WeightType) -> Result<Self, ModelError> {
        let d = self.config.head_dim;
        let supported = longspan_kernels::supported(&self.info.device, d, &[activations.into()]);
        supported.map_err(|reason| ModelError::Device {
            what: "activations",
            dtype: activations.name(),
            reason,
        })?;
        let info = Arc::get_mut(&mut self.info).expect("a model that was just loaded");
        info.activations = activations;
        Ok(self)
    }

    /// The types that a number of this model depends on: that in which the layers hold their matrices, and that of the
    /// activations if it is not f32.
    pub fn types(&self) -> String {
        match self.info.activations {
            WeightType::F32 => self.info.held.to_owned(),
            other => format!("{}, activations {}", self.info.held, other.name()),
        }
    }

    /// What runs the passes: `cpu`, or a GPU runtime and its compiler, as `cuda` or `wgpu<wgsl>`.
    pub fn device_kind(&self) -> &str {
        &self.info.device_kind
    }

    /// Lays a method over the model for passes of `length.total` tokens.
    ///
    /// # Errors
    /// When the method does not fit the model.
    pub fn plan(&self, method: &Method, length: Length) -> Result<PassPlan, PlanError> {
        let plans = method.plan(&self.config.geometry(), length)?;
        let layers = PlanTensors::for_layers(&plans, &self.info.device);
        Ok(PassPlan {
            layers,
            tokens: length.total,
        })
    }

    /// Negative log likelihood, in nats, of tokens `1..n` of a sequence (`n` = the plan's length), each given
    /// all tokens before it: `n - 1` values. `ids` may hold several sequences, one after the other, and so does the result;
    /// what each gives does not depend on the others.
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
        let loss: Vec<f32> = loss
            .into_data()
            .try_to_vec()
            .expect("a loss is read back as f32");
        // The last token of a sequence says nothing about the first of the next.
        let sequences = loss.chunks(plan.tokens);
        Ok(sequences
            .flat_map(|loss| &loss[..plan.tokens - 1])
            .copied()
            .collect())
    }

    /// Negative log likelihood `[n]`, nats, of `targets`, given hidden states `[n, hidden_size]`.
    pub fn loss(&self, hidden: Tensor<2>, targets: &[u32]) -> Tensor<1> {
        ops::token_loss(hidden, self.lm_head.val(), self.ids(targets))
    }

    /// Hidden states `[n, hidden_size]` after the last norm: what the LM head sees; of several sequences one after the other,
    /// as in [`nll`](Transformer::nll).
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

    /// [`Transformer::hidden`] of sequences of `n` tokens, with the attention of each layer given: of un-rotated `q`, `k` and `v`
    /// `[b, h, n, d]`.
    pub(crate) fn hidden_with(
        &self,
        ids: &[u32],
        n: usize,
        mut attend: impl FnMut(usize, Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<2>, ModelError> {
        self.check(ids)?;
        let embedded = self.wte.val().select(0, self.ids(ids));
        let mut hidden = embedded.cast(DType::from(self.info.activations));
        for (layer, block) in self.h.iter().enumerate() {
            hidden = block.forward(hidden, n, &self.config, |q, k, v| attend(layer, q, k, v));
        }
        Ok(ops::rms_norm(hidden, self.ln_f.val(), self.config.epsilon))
    }

    /// That all ids are in the vocabulary.
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

    /// A model in training as one that is only evaluated.
    pub(crate) fn evaluated(&self) -> Transformer {
        let mut model = self.valid();
        model.info = Arc::new(Info {
            digest: self.info.digest.clone(),
            held: self.info.held,
            activations: self.info.activations,
            device: self.info.device.clone().inner(),
            device_kind: self.info.device_kind.clone(),
        });
        model
    }

    /// Logits `[n, vocab_size]`, f32, of hidden states `[n, hidden_size]`; meant for a few rows.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        ops::linear(hidden, self.lm_head.val()).cast(DType::F32)
    }

    fn ids(&self, ids: &[u32]) -> Tensor<1, Int> {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let len = ids.len();
        Tensor::from_data(TensorData::new(ids, [len]), (&self.info.device, DType::I32))
    }
}

impl Block {
    fn assemble<S: Source>(from: &mut Parameters<S>, prefix: &str) -> Result<Self, ModelError> {
        Ok(Block {
            ln_1: from.next(&format!("{prefix}.ln_1.weight"))?,
            c_attn: from.linear(&format!("{prefix}.attn.c_attn"))?,
            c_attn_bias: from.next(&format!("{prefix}.attn.c_attn.bias"))?,
            c_proj: from.linear(&format!("{prefix}.attn.c_proj"))?,
            ln_2: from.next(&format!("{prefix}.ln_2.weight"))?,
            w1: from.linear(&format!("{prefix}.mlp.w1"))?,
            w2: from.linear(&format!("{prefix}.mlp.w2"))?,
            mlp_c_proj: from.linear(&format!("{prefix}.mlp.c_proj"))?,
        })
    }

    fn forward(
        &self,
        hidden: Tensor<2>,
        n: usize,
        config: &Architecture,
        attend: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<2> {
        let hidden = self.attention(hidden, n, config, attend);
        self.mlp(hidden, config)
    }

    /// Adds attention to `[b * n, hidden]`.
    fn attention(
        &self,
        hidden: Tensor<2>,
        n: usize,
        config: &Architecture,
        attend: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<2> {
        let [rows, width] = hidden.dims();
        let (b, h, d) = (rows / n, config.heads, config.head_dim);
        let x = ops::rms_norm(hidden.clone(), self.ln_1.val(), config.epsilon);
        let qkv = self.c_attn.add(x, self.c_attn_bias.val().unsqueeze());
        // Views of one buffer: q, k and v lie side by side in each row.
        let qkv = qkv.reshape([b, n, 3 * h, d]);
        let part = |i: usize| qkv.clone().narrow(2, i * h, h).swap_dims(1, 2);
        let output = attend(part(0), part(1), part(2));
        drop(qkv);
        let output = output.swap_dims(1, 2).reshape([rows, width]);
        self.c_proj.add(output, hidden)
    }

    /// Adds the feed-forward layer to `[n, hidden]`, in blocks of rows.
    fn mlp(&self, hidden: Tensor<2>, config: &Architecture) -> Tensor<2> {
        let [n, width] = hidden.dims();
        if n <= MLP_ROWS {
            return self.mlp_rows(hidden, config);
        }
        let blocks = (0..n).step_by(MLP_ROWS).map(|start| {
            let rows = start..(start + MLP_ROWS).min(n);
            self.mlp_rows(hidden.clone().slice([rows, 0..width]), config)
        });
        Tensor::cat(blocks.collect(), 0)
    }

    fn mlp_rows(&self, hidden: Tensor<2>, config: &Architecture) -> Tensor<2> {
        let x = ops::rms_norm(hidden.clone(), self.ln_2.val(), config.epsilon);
        // Qwen gates with its second matrix: w1(x) * silu(w2(x)).
        let gated = Linear::gated(&self.w1, &self.w2, x);
        self.mlp_c_proj.add(gated, hidden)
    }
}

/// Where parameters come from.
pub(crate) trait Source {
    /// The tensor of a name, as published.
    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>, ModelError>;

    /// The matrix of a layer, by its name without `.weight`, where it is packed.
    fn packed(&mut self, _layer: &str) -> Result<Option<Packed>, ModelError> {
        Ok(None)
    }
}

/// Numbers the parameters in the order in which they are taken, so that an optimiser's state that was
/// saved by another process finds its own.
struct Parameters<'a, S> {
    source: &'a mut S,
    taken: u64,
}

impl<S: Source> Parameters<'_, S> {
    fn next<const D: usize>(&mut self, name: &str) -> Result<Param<Tensor<D>>, ModelError> {
        self.taken += 1;
        let id = ParamId::from(self.taken);
        Ok(Param::initialized(id, self.source.tensor(name)?))
    }

    fn linear(&mut self, layer: &str) -> Result<Linear, ModelError> {
        Ok(match self.source.packed(layer)? {
            Some(packed) => Linear::packed(packed),
            None => Linear::Dense(self.next(&format!("{layer}.weight"))?),
        })
    }
}

/// The files of a checkpoint: matrices in `dtype`, vectors in f32.
pub(crate) struct Stored<'a> {
    pub checkpoint: &'a mut Checkpoint,
    pub dtype: WeightType,
    pub device: &'a Device,
}

impl Source for Stored<'_> {
    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>, ModelError> {
        let dtype = if D == 2 { self.dtype } else { WeightType::F32 };
        self.checkpoint.tensor(name, dtype, self.device)
    }

    fn packed(&mut self, layer: &str) -> Result<Option<Packed>, ModelError> {
        let quantization = self.checkpoint.config.quantization;
        quantization
            .map(|quantization| self.checkpoint.packed(layer, quantization, self.device))
            .transpose()
    }
}
