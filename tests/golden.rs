//! Parity with the float64 references of `tests/golden`: every checkpoint of every model family, every
//! case, every length.

mod shared;

use std::path::Path;

use burn::tensor::Device;
use longspan_attention::Method;
#[cfg(feature = "wgpu")]
use longspan_model::WeightType;
use longspan_model::{FAMILIES, Transformer};
use longspan_rope::Length;
use serde_json::Value;
#[cfg(feature = "wgpu")]
use shared::golden;
use shared::{Expected, cases};

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);
/// Largest absolute error allowed on a logit.
const LOGIT: f64 = 2e-3;
/// Largest difference on the NLL allowed for activations in half precision, which keeps 11 bits of
/// a value. Lavapipe is off by 4e-3.
#[cfg(feature = "wgpu")]
const HALF: f32 = 2e-2;

/// A case of the reference.
struct Case {
    name: String,
    method: Method,
    length: Length,
    /// Positions whose logits the reference holds.
    logits: Vec<usize>,
}

impl Case {
    fn of(case: &Value) -> Self {
        let n = case["length"].as_u64().unwrap() as usize;
        let positions = case["logits_positions"].as_array().unwrap().iter();
        Self {
            name: format!("{}.{n}", case["case"].as_str().unwrap()),
            method: serde_json::from_value(shared::method(case)).unwrap(),
            length: Length::whole(n),
            logits: positions
                .map(|position| position.as_u64().unwrap() as usize)
                .collect(),
        }
    }
}

#[test]
fn checkpoints_equal_the_reference_in_every_case() {
    for family in FAMILIES {
        for folder in shared::family(family.name()) {
            let count = checkpoint_equals_the_reference(&folder);
            assert!(count > 1000, "{}", folder.display());
            if folder.ends_with("micro") {
                // Two sequences of 1 + 33 + 64 + 65 + 128 + 129 + 500 tokens under 14 methods.
                assert_eq!(count, 14 * 2 * (920 - 7));
            }
        }
    }
}

/// Returns the number of tokens compared.
fn checkpoint_equals_the_reference(folder: &Path) -> usize {
    let model = Transformer::load(folder, None, &Device::flex()).unwrap();
    let expected = Expected::read(folder);
    let (mut count, mut sum, mut largest, mut largest_logit) = (0, 0f64, 0f64, 0f64);
    for case in cases(folder).iter().map(Case::of) {
        let errors = nll_errors(&model, &case, &expected);
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        assert!(mean < NLL.0, "{}: mean error {mean}", case.name);
        sum += errors.iter().sum::<f64>();
        count += errors.len();
        largest = errors.into_iter().fold(largest, f64::max);
        largest_logit = largest_logit.max(logit_error(&model, &case, &expected));
    }
    println!(
        "{count} tokens: mean error {:.2e}, largest {largest:.2e}; logits: largest {largest_logit:.2e}",
        sum / count as f64
    );
    count
}

/// Absolute errors of the losses of both sequences, each below the limit.
fn nll_errors(model: &Transformer, case: &Case, expected: &Expected) -> Vec<f64> {
    let n = case.length.total;
    let plan = model.plan(&case.method, case.length).unwrap();
    let ids = expected.ids(&format!("ids.{n}"));
    // A single token has nothing to predict.
    let want = expected.get(&format!("nll.{}", case.name));
    let want = want.unwrap_or_default();
    assert_eq!(want.len(), 2 * (n - 1), "{}", case.name);
    let got = ids.chunks(n).flat_map(|ids| model.nll(ids, &plan).unwrap());
    let got: Vec<f32> = got.collect();
    assert_eq!(got.len(), want.len(), "{}", case.name);
    let pairs = got.iter().zip(&want).enumerate();
    pairs
        .map(|(i, (&got, want))| {
            let error = (f64::from(got) - want).abs();
            let name = &case.name;
            // A NaN is not below the limit either.
            assert!(error < NLL.1, "{name} token {i}: {got} against {want}");
            error
        })
        .collect()
}

/// The largest absolute error of a logit, below the limit.
fn logit_error(model: &Transformer, case: &Case, expected: &Expected) -> f64 {
    let n = case.length.total;
    let plan = model.plan(&case.method, case.length).unwrap();
    let (width, vocabulary) = (model.config().hidden_size, model.config().vocab_size);
    let want = expected.values(&format!("logits.{}", case.name));
    let mut rows = want.chunks(vocabulary);
    let mut largest = 0f64;
    for ids in expected.ids(&format!("ids.{n}")).chunks(n) {
        let hidden = model.hidden(ids, &plan).unwrap();
        for &position in &case.logits {
            let row = hidden.clone().slice([position..position + 1, 0..width]);
            let got: Vec<f32> = model.logits(row).into_data().try_to_vec().unwrap();
            let want = rows.next().unwrap();
            assert_eq!(got.len(), want.len(), "{}", case.name);
            for (&got, want) in got.iter().zip(want) {
                let error = (f64::from(got) - want).abs();
                let name = &case.name;
                assert!(error < LOGIT, "{name} at {position}: {got} against {want}");
                largest = largest.max(error);
            }
        }
    }
    assert!(rows.next().is_none(), "{}: logits left over", case.name);
    largest
}

/// Every case up to length 129 on a GPU, or on a software driver for one.
#[cfg(feature = "wgpu")]
#[test]
fn micro_checkpoint_on_wgpu_scores_as_on_the_cpu() {
    on_wgpu_as_on_the_cpu(WeightType::F32, &[1, 33, 64, 65, 128, 129], NLL.1 as f32);
}

/// Two lengths in half precision: weights and activations on the GPU, weights alone on the CPU.
#[cfg(feature = "wgpu")]
#[test]
fn half_precision_on_wgpu_scores_as_on_the_cpu() {
    on_wgpu_as_on_the_cpu(WeightType::F16, &[33, 129], HALF);
}

#[cfg(feature = "wgpu")]
fn on_wgpu_as_on_the_cpu(dtype: WeightType, lengths: &[usize], limit: f32) {
    let Some(gpu) = shared::wgpu("golden/micro on wgpu") else {
        return;
    };
    let folder = golden("micro");
    let on_cpu = Transformer::load(&folder, Some(dtype), &Device::flex()).unwrap();
    let on_gpu = Transformer::load(&folder, Some(dtype), &gpu).unwrap();
    let on_gpu = on_gpu.with_activations(dtype).unwrap();
    assert_eq!(on_cpu.device_kind(), "cpu");
    assert!(on_gpu.device_kind().starts_with("wgpu"));
    let expected = Expected::read(&folder);
    let (mut compared, mut largest, mut sum) = (0usize, 0f32, 0f64);
    for case in cases(&folder).iter().map(Case::of) {
        let n = case.length.total;
        if !lengths.contains(&n) {
            continue;
        }
        for ids in expected.ids(&format!("ids.{n}")).chunks(n) {
            let [want, got] = [&on_cpu, &on_gpu].map(|model| {
                let plan = model.plan(&case.method, case.length).unwrap();
                model.nll(ids, &plan).unwrap()
            });
            assert_eq!(got.len(), want.len(), "{}", case.name);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let error = (got - want).abs();
                let name = &case.name;
                assert!(error < limit, "{name} token {i}: {got} against {want}");
                largest = largest.max(error);
                sum += f64::from(error);
                compared += 1;
            }
        }
    }
    let mean = sum / compared as f64;
    println!(
        "{}: {compared} tokens: mean difference {mean:.2e}, largest {largest:.2e}",
        on_gpu.types()
    );
    let of_a_sequence: usize = lengths.iter().map(|n| n - 1).sum();
    assert_eq!(compared, 14 * 2 * of_a_sequence);
    assert!(mean < f64::from(limit) / 10.0, "mean difference {mean}");
}
