//! Parity with the float64 reference of `../shared/golden/micro`: every case, every length.

mod shared;

use std::path::Path;

use burn::tensor::{DType, Device, TensorData};
use longspan_attention::Method;
use longspan_model::Qwen;
use longspan_rope::Length;
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);
/// Largest absolute error allowed on a logit.
const LOGIT: f64 = 2e-3;

/// A case of `expected.json` as a `[[method]]` table.
fn method(case: &Value) -> Method {
    let factor = &case["factor"];
    let rope = match case["method"].as_str().unwrap() {
        "none" => json!({"kind": "none"}),
        "dynamic_ntk_qwen" => json!({"kind": "dynamic_ntk"}),
        "dynamic_hf" => json!({"kind": "dynamic_ntk_hf", "factor": factor}),
        kind => json!({"kind": kind, "factor": factor}),
    };
    let logn = match (&case["logn"], &case["logn_visible"]) {
        (Value::Bool(true), Value::Bool(true)) => json!({"length": "visible"}),
        (logn, _) => json!(logn == &json!(true)),
    };
    let mut table = json!({"name": case["case"], "rope": rope, "logn": logn});
    if let Some(windows) = case["windows"].as_array() {
        let layers: Vec<Value> = windows
            .iter()
            .map(|w| {
                if w.is_null() {
                    json!("full")
                } else {
                    w.clone()
                }
            })
            .collect();
        let per_layer = case["per_layer_ntk"] == json!(true);
        let alpha = if per_layer { "per_layer" } else { "global" };
        table["window"] = json!({"layers": layers, "alpha": alpha});
    }
    if let Some(sinks) = case.get("sinks") {
        table["sinks"] = sinks.clone();
    }
    serde_json::from_value(table).unwrap()
}

fn floats(tensor: safetensors::tensor::TensorView) -> Vec<f64> {
    let data = TensorData::from_bytes_vec(
        tensor.data().to_vec(),
        tensor.shape().to_vec(),
        match tensor.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F64 => DType::F64,
            safetensors::Dtype::I32 => DType::I32,
            other => panic!("expected.safetensors holds {other:?}"),
        },
    );
    data.iter::<f64>().collect()
}

#[test]
fn micro_checkpoint_equals_the_reference_in_every_case() {
    let Some(folder) = shared::path("golden/micro") else {
        return;
    };
    check(&folder);
}

fn check(folder: &Path) {
    let device = Device::flex();
    let model = Qwen::load(folder, None, &device).unwrap();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (mut count, mut error_sum, mut error_max, mut logit_max) = (0usize, 0f64, 0f64, 0f64);
    for case in cases["cases"].as_array().unwrap() {
        let n = case["length"].as_u64().unwrap() as usize;
        let name = case["case"].as_str().unwrap();
        let length = Length {
            total: n,
            prefill: n,
        };
        let plan = model.plan(&method(case), length).unwrap();
        let ids = floats(expected.tensor(&format!("ids.{n}")).unwrap());
        let nll = match expected.tensor(&format!("nll.{name}.{n}")) {
            Ok(nll) => floats(nll),
            Err(_) => Vec::new(), // a single token has nothing to predict
        };
        assert_eq!(nll.len(), 2 * (n - 1), "{name} {n}");
        let logits = floats(expected.tensor(&format!("logits.{name}.{n}")).unwrap());
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
