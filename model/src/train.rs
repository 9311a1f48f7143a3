//! Pretraining: the model's forward pass over batches of sequences, AdamW, gradient clipping.

use std::fs;
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use longspan_attention::{Method, PlanError};
use longspan_rope::Length;
use serde::{Deserialize, Serialize};

use crate::initial::InitialSource;
use crate::source::{CheckpointSource, Source};
use crate::tensors::Parameter;
use crate::transformer::PassPlan;
use crate::write::{write_checkpoint, write_whole};
use crate::{Architecture, Checkpoint, Initial, ModelError, Transformer, WeightType};

/// Settings of AdamW (arXiv 1711.05101). Weight decay applies to matrices only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, per step and unit of learning rate.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; a larger gradient is scaled down to it.
    pub clip: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

/// A training sequence: `n + 1` token ids, and a weight for the loss of each of the last `n`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Weight of the loss of each token except the first.
    pub weights: Vec<f32>,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub struct StepLoss {
    /// Weighted mean loss, nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Unweighted loss of every token of every sequence, nats.
    pub nll: Vec<Vec<f32>>,
}

/// A model in training.
pub struct Trainer {
    model: Transformer,
    optimizer: ModuleOptimizer,
    clip: f64,
}

const OPTIMIZER_FILE: &str = "optimizer.bpk";

impl Trainer {
    /// A new model with drawn parameters.
    pub fn new(
        config: Architecture,
        initial: &Initial,
        optimizer: &Optimizer,
        seed: u64,
        device: &Device,
    ) -> Self {
        let device = device.clone().autodiff();
        let mut source = InitialSource::new(config.clone(), initial, seed, &device);
        let model = Transformer::assemble(config, &mut source, WeightType::F32, &device)
            .expect("drawing parameters cannot fail");
        Trainer::with_model(model, optimizer)
    }

    /// Resumes from a folder that [`Trainer::save`] wrote.
    ///
    /// # Errors
    /// A file or a value is not as it should be; the matrices are packed.
    pub fn resume(
        folder: &Path,
        optimizer: &Optimizer,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let device = device.clone().autodiff();
        let mut checkpoint = Checkpoint::open(folder)?;
        if checkpoint.config.quantization.is_some() {
            let folder = folder.to_owned();
            return Err(ModelError::PackedTraining { folder });
        }
        let config = checkpoint.config.clone();
        let mut source = Tracked(CheckpointSource {
            checkpoint: &mut checkpoint,
            dtype: WeightType::F32,
            device: &device,
        });
        let model = Transformer::assemble(config, &mut source, WeightType::F32, &device)?;
        let mut trainer = Trainer::with_model(model, optimizer);
        let path = folder.join(OPTIMIZER_FILE);
        let bytes = fs::read(&path).map_err(ModelError::io(&path))?;
        trainer.optimizer = trainer
            .optimizer
            .from_bytes(burn::tensor::Bytes::from_bytes_vec(bytes))
            .map_err(|error| ModelError::OptimizerState {
                path,
                message: error.to_string(),
            })?;
        Ok(trainer)
    }

    fn with_model(model: Transformer, settings: &Optimizer) -> Self {
        let adamw = |weight_decay: f64| {
            AdamWConfig::new()
                .with_beta_1(settings.beta_1 as f32)
                .with_beta_2(settings.beta_2 as f32)
                .with_epsilon(settings.epsilon as f32)
                .with_weight_decay(weight_decay as f32)
                .build()
        };
        let mut matrices = MatrixIds::default();
        model.visit(&mut matrices);
        let optimizer = ModuleOptimizer::from(adamw(0.0)).with_group(
            ParamGroup::from_ids(matrices.0),
            adamw(settings.weight_decay),
            None,
        );
        Trainer {
            model,
            optimizer,
            clip: settings.clip,
        }
    }

    /// One step under a method, with the gradients of all batches added up. All sequences of a
    /// batch have the same length.
    ///
    /// # Errors
    /// The method does not fit the model; a token is outside the vocabulary; the loss or the
    /// gradient is not finite. The parameters are then unchanged.
    pub fn step(
        &mut self,
        batches: &[Vec<Sequence>],
        method: &Method,
        learning_rate: f64,
    ) -> Result<StepLoss, ModelError> {
        let weights = batches.iter().flatten().flat_map(|s| &s.weights);
        let total = weights.map(|&w| f64::from(w)).sum::<f64>().max(1e-9);
        let mut accumulated = GradientsAccumulator::new();
        let (mut loss, mut nll) = (0.0, Vec::new());
        for batch in batches {
            let losses = self.batch_loss(batch, method)?;
            let values: Vec<f32> = longspan_kernels::read(losses.clone())?;
            let n = batch[0].weights.len();
            let weights: Vec<f32> = batch.iter().flat_map(|s| s.weights.clone()).collect();
            let weighted = values.iter().zip(&weights);
            loss += weighted.map(|(x, w)| f64::from(x * w)).sum::<f64>() / total;
            nll.extend(values.chunks(n).map(<[f32]>::to_vec));

            let shape = [weights.len()];
            let options = (&self.model.device(), DType::F32);
            let weights = Tensor::from_data(TensorData::new(weights, shape), options);
            let scalar = (losses * weights).sum() / total;
            let gradients = GradientsParams::from_grads(scalar.backward(), &self.model);
            accumulated.accumulate(&self.model, gradients);
        }
        let mut gradients = accumulated.grads();
        let mut norm = SquaredNorm {
            gradients: &gradients,
            sum: 0.0,
        };
        self.model.visit(&mut norm);
        let gradient_norm = norm.sum.sqrt();
        if !(loss.is_finite() && gradient_norm.is_finite()) {
            return Err(ModelError::Diverged {
                loss,
                gradient_norm,
            });
        }
        if gradient_norm > self.clip {
            self.model.visit(&mut ScaleGradients {
                gradients: &mut gradients,
                factor: self.clip / gradient_norm,
            });
        }
        let model = self.model.clone();
        self.model = self.optimizer.step(learning_rate, model, gradients);
        Ok(StepLoss {
            loss,
            gradient_norm,
            nll,
        })
    }

    /// Losses `[sequences * n]` of the sequences of a batch, in one pass.
    fn batch_loss(&self, batch: &[Sequence], method: &Method) -> Result<Tensor<1>, ModelError> {
        let n = batch[0].weights.len();
        let same = |s: &Sequence| s.weights.len() == n && s.ids.len() == n + 1;
        assert!(
            batch.iter().all(same),
            "a batch has sequences of one length"
        );
        let plan = self.batch_plan(method, n, batch.len())?;
        let fed: Vec<u32> = batch.iter().flat_map(|s| s.ids[..n].to_vec()).collect();
        let targets: Vec<u32> = batch.iter().flat_map(|s| s.ids[1..].to_vec()).collect();
        let hidden = self.model.hidden(&fed, &plan)?;
        self.model.check(&targets)?;
        Ok(self.model.loss(hidden, &targets))
    }

    /// The plan of `copies` sequences of `n` tokens in one pass, none of which sees another.
    fn batch_plan(&self, method: &Method, n: usize, copies: usize) -> Result<PassPlan, PlanError> {
        let geometry = self.model.config().geometry();
        let plans = method.plan(&geometry, Length::whole(n))?.packed(copies);
        Ok(PassPlan::new(&plans, n * copies, &self.model.device()))
    }

    /// The model's sizes.
    pub fn config(&self) -> &Architecture {
        self.model.config()
    }

    /// The current model, for evaluation.
    pub fn model(&self) -> Transformer {
        self.model.evaluated()
    }

    /// Writes a checkpoint with weights in f32, and the optimiser's state.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.export(folder, WeightType::F32)?;
        let path = folder.join(OPTIMIZER_FILE);
        let bytes = self
            .optimizer
            .into_bytes()
            .map_err(|error| ModelError::OptimizerState {
                path: path.clone(),
                message: error.to_string(),
            })?;
        write_whole(&path, |file| file.write_all(&bytes))
    }

    /// Writes `config.json` and `model.safetensors`, with matrices in `dtype` and vectors in f32.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn export(&self, folder: &Path, dtype: WeightType) -> Result<(), ModelError> {
        let mut values = ParameterValues::default();
        self.model.visit(&mut values);
        write_checkpoint(folder, self.model.config(), values.0, dtype)
    }
}

/// A source of tensors with gradients.
struct Tracked<S>(S);

impl<S: Source> Source for Tracked<S> {
    fn tensor<const D: usize>(&mut self, parameter: &Parameter) -> Result<Tensor<D>, ModelError> {
        Ok(self.0.tensor::<D>(parameter)?.require_grad())
    }
}

#[derive(Default)]
struct MatrixIds(Vec<ParamId>);

impl ModuleVisitor for MatrixIds {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 {
            self.0.push(param.id);
        }
    }
}

/// Values of all parameters, in the order of [`Architecture::parameters`].
#[derive(Default)]
struct ParameterValues(Vec<Vec<f32>>);

impl ModuleVisitor for ParameterValues {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().try_to_vec();
        self.0.push(values.expect("trained parameters are f32"));
    }
}

struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    sum: f64,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square: f32 = gradient.square().sum().into_scalar();
            self.sum += f64::from(square);
        }
    }
}

struct ScaleGradients<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for ScaleGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients
                .register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}
