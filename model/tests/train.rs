//! The trainer: it learns, and stopping changes nothing.

use burn::tensor::Device;
use longspan_attention::Method;
use longspan_model::{Initial, Optimizer, Transformer, Architecture, Sequence, Trainer, WeightType};
use longspan_rope::Length;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn config() -> Architecture {
    Architecture {
        vocab_size: 61,
        hidden_size: 32,
        layers: 2,
        heads: 2,
        head_dim: 16,
        ffn: 40,
        trained: 24,
        rope_base: 1e4,
        epsilon: 1e-6,
        quantization: None,
    }
}

/// Batches of one step: random spans, each said twice.
fn batches(step: u64) -> Vec<Vec<Sequence>> {
    let mut rng = StdRng::seed_from_u64(step);
    let mut sequence = || {
        let span: Vec<u32> = (0..13).map(|_| rng.random_range(0..61)).collect();
        Sequence {
            ids: span.iter().chain(&span[..12]).copied().collect(),
            weights: (0..24).map(|i| if i < 12 { 0.25 } else { 1.0 }).collect(),
        }
    };
    vec![
        (0..3).map(|_| sequence()).collect(),
        (0..2).map(|_| sequence()).collect(),
    ]
}

fn trainer() -> Trainer {
    let initial = Initial {
        matrices: 0.1,
        embedding: 0.3,
        offsets: vec![vec![1]],
        ..Initial::default()
    };
    let device = Device::flex();
    Trainer::new(config(), &initial, &Optimizer::default(), 7, &device)
}

fn plain() -> Method {
    Method::named("plain")
}

fn losses(trainer: &mut Trainer, steps: std::ops::Range<u64>) -> Vec<f64> {
    steps
        .map(|step| {
            trainer
                .step(&batches(step % 2), &plain(), 3e-3)
                .unwrap()
                .loss
        })
        .collect()
}

#[test]
fn training_learns_and_resumes_bit_for_bit() {
    let mut whole = trainer();
    let curve = losses(&mut whole, 0..60);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&curve[..5]), mean(&curve[55..]));
    assert!(last < 0.9 * first, "{first} to {last}");

    let mut start = trainer();
    let mut parts = losses(&mut start, 0..25);
    let folder = tempfile::tempdir().unwrap();
    start.save(folder.path()).unwrap();
    let mut end = Trainer::resume(folder.path(), &Optimizer::default(), &Device::flex()).unwrap();
    parts.extend(losses(&mut end, 25..60));
    let bits = |losses: &[f64]| losses.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&parts), bits(&curve));
}

/// Packing changes nothing: the losses of a step are those of each sequence on its own, evaluated.
#[test]
fn a_step_sees_what_evaluation_sees() {
    let mut trainer = trainer();
    let model = trainer.model();
    let batches = batches(1);
    let step = trainer.step(&batches, &plain(), 0.0).unwrap();
    let length = Length {
        total: 25,
        prefill: 25,
    };
    let plan = model.plan(&plain(), length).unwrap();
    let (mut weighted, mut total) = (0.0, 0.0);
    for (sequence, nll) in batches.iter().flatten().zip(&step.nll) {
        let alone = model.nll(&sequence.ids, &plan).unwrap();
        for ((a, b), w) in alone.iter().zip(nll).zip(&sequence.weights) {
            assert!((a - b).abs() < 1e-4, "{a} against {b}");
            weighted += f64::from(a * w);
            total += f64::from(*w);
        }
    }
    assert!((step.loss - weighted / total).abs() < 1e-5);
}

#[test]
fn an_exported_folder_holds_the_model() {
    let trainer = trainer();
    let folder = tempfile::tempdir().unwrap();
    trainer.export(folder.path(), WeightType::F32).unwrap();
    let loaded = Transformer::load(folder.path(), None, &Device::flex()).unwrap();
    assert_eq!(loaded.config(), &config());
    let length = Length {
        total: 25,
        prefill: 25,
    };
    let ids = &batches(3)[0][0].ids;
    let nll = |model: &Transformer| {
        let plan = model.plan(&plain(), length).unwrap();
        model.nll(ids, &plan).unwrap()
    };
    assert_eq!(nll(&loaded), nll(&trainer.model()));
}
