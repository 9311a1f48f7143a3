//! Parity with the float64 reference of `../shared/golden/micro`: every case, every length.

mod shared;

use std::path::Path;

use burn::tensor::Device;
use longspan_model::Transformer;
#[cfg(feature = "wgpu")]
use longspan_model::WeightType;
use longspan_rope::Length;
use safetensors::SafeTensors;
use serde_json::Value;

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);
/// Largest absolute error allowed on a logit.
const LOGIT: f64 = 2e-3;
/// Largest difference that activations in half precision, 11 bits a value, may make on the NLL; lavapipe makes 4e-3.
#[cfg(feature = "wgpu")]
const HALF: f32 = 2e-2;

#[test]
fn micro_checkpoint_equals_the_reference_in_every_case() {
    let Some(folder) = shared::path("golden/micro") else {
        return;
    };
    check(&folder);
}

fn check(folder: &Path) {
    let device = Device::flex();
    let model = Transformer::load(folder, None, &device).unwrap();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (mut count, mut error_sum, mut error_max, mut logit_max) = (0usize, 0f64, 0f64, 0f64);
    for case in cases["cases"].as_array().unwrap() {
        let n = case["length"].as_u64().unwrap() as usize;
        let name = case["case"].as_str().unwrap();
        let method = serde_json::from_value(shared::method(case)).unwrap();
        let length = Length {
            total: n,
            prefill: n,
        };
        let plan = model.plan(&method, length).unwrap();
        let ids = shared::floats(expected.tensor(&format!("ids.{n}")).unwrap());
        let nll = match expected.tensor(&format!("nll.{name}.{n}")) {
            Ok(nll) => shared::floats(nll),
            Err(_) => Vec::new(), // a single token has nothing to predict
        };
        assert_eq!(nll.len(), 2 * (n - 1), "{name} {n}");
        let logits = shared::floats(expected.tensor(&format!("logits.{name}.{n}")).unwrap());
        let vocabulary = model.config().vocab_size;
        let positions = case["logits_positions"].as_array().unwrap();
        for sequence in 0..2 {
            let ids: Vec<u32> = ids[sequence * n..(sequence + 1) * n]
                .iter()
                .map(|&id| id as u32)
                .collect();
            let got = model.nll(&ids, &plan).unwrap();
            let want = &nll[sequence * (n - 1)..(sequence + 1) * (n - 1)];
            assert_eq!(got.len(), want.len(), "{name} {n}");
            let mut sum = 0.0;
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                assert!(got.is_finite(), "{name} {n} token {i}");
                let error = (*got as f64 - want).abs();
                assert!(error < NLL.1, "{name} {n} token {i}: {got} against {want}");
                sum += error;
                error_max = error_max.max(error);
            }
            assert!(
                sum < NLL.0 * want.len().max(1) as f64,
                "{name} {n}: mean error"
            );
            error_sum += sum;
            count += want.len();

            let hidden = model.hidden(&ids, &plan).unwrap();
            for (row, position) in positions.iter().enumerate() {
                let position = position.as_u64().unwrap() as usize;
                let width = model.config().hidden_size;
                let row_of_hidden = hidden.clone().slice([position..position + 1, 0..width]);
                let got: Vec<f32> = model
                    .logits(row_of_hidden)
                    .into_data()
                    .try_to_vec()
                    .unwrap();
                let start = (sequence * positions.len() + row) * vocabulary;
                for (got, want) in got.iter().zip(&logits[start..start + vocabulary]) {
                    let error = (*got as f64 - want).abs();
                    assert!(
                        error < LOGIT,
                        "{name} {n} logits at {position}: {got} {want}"
                    );
                    logit_max = logit_max.max(error);
                }
            }
        }
    }
    println!(
        "{count} tokens: mean error {:.2e}, largest {error_max:.2e}; logits: largest {logit_max:.2e}",
        error_sum / count as f64
    );
    assert!(count > 12 * 2 * 900, "only {count} tokens were compared");
}

/// Every case up to length 129, on a GPU or on what passes for one.
#[cfg(feature = "wgpu")]
#[test]
fn micro_checkpoint_on_wgpu_scores_as_on_the_cpu() {
    on_wgpu_as_on_the_cpu(WeightType::F32, NLL.1 as f32);
}

/// The same in half precision: weights and activations on the GPU, weights alone on the CPU.
#[cfg(feature = "wgpu")]
#[test]
fn half_precision_on_wgpu_scores_as_on_the_cpu() {
    on_wgpu_as_on_the_cpu(WeightType::F16, HALF);
}

#[cfg(feature = "wgpu")]
fn on_wgpu_as_on_the_cpu(dtype: WeightType, limit: f32) {
    let Some(folder) = shared::path("golden/micro") else {
        return;
    };
    let Some(gpu) = shared::wgpu("golden/micro on wgpu") else {
        return;
    };
    let on_cpu = Transformer::load(&folder, Some(dtype), &Device::flex()).unwrap();
    let on_gpu = Transformer::load(&folder, Some(dtype), &gpu).unwrap();
    let on_gpu = on_gpu.with_activations(dtype).unwrap();
    assert_eq!(on_cpu.device_kind(), "cpu");
    assert!(on_gpu.device_kind().starts_with("wgpu"));
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (mut compared, mut largest, mut sum) = (0usize, 0f32, 0f64);
    for case in cases["cases"].as_array().unwrap() {
        let n = case["length"].as_u64().unwrap() as usize;
        if n > 129 {
            continue;
        }
        let name = case["case"].as_str().unwrap();
        let method = serde_json::from_value(shared::method(case)).unwrap();
        let length = Length {
            total: n,
            prefill: n,
        };
        let ids = shared::floats(expected.tensor(&format!("ids.{n}")).unwrap());
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        for ids in ids.chunks(n) {
            let nll = |model: &Transformer| {
                let plan = model.plan(&method, length).unwrap();
                model.nll(ids, &plan).unwrap()
            };
            let (want, got) = (nll(&on_cpu), nll(&on_gpu));
            assert_eq!(got.len(), want.len(), "{name} {n}");
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!(got.is_finite(), "{name} {n} token {i}");
                let error = (got - want).abs();
                assert!(error < limit, "{name} {n} token {i}: {got} against {want}");
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
    assert!(compared > 2 * 5000, "only {compared} tokens were compared");
    assert!(mean < f64::from(limit) / 10.0, "mean difference {mean}");
}
