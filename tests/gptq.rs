//! GPTQ checkpoints: parity with a float64 reference, and matrices that the test packs itself as AutoGPTQ does.

mod shared;

use burn::tensor::Device;
use longspan_attention::Method;
use longspan_model::Qwen;
use longspan_rope::Length;
use safetensors::SafeTensors;
use serde_json::json;

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);
/// Largest absolute error allowed on a logit.
const LOGIT: f64 = 2e-3;

#[test]
fn packed_checkpoints_equal_the_reference() {
    for (name, dtype) in [("int4", "int4"), ("int8", "int8")] {
        let Some(folder) = shared::path(&format!("golden/gptq-{name}")) else {
            continue;
        };
        let model = Qwen::load(&folder, None, &Device::flex()).unwrap();
        assert_eq!(model.dtype().name(), dtype);
        let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let values = |name: &str| shared::floats(expected.tensor(name).unwrap());
        let (ids, nll, logits) = (values("ids"), values("nll"), values("logits.last"));
        let (n, vocabulary) = (129, model.config().vocab_size);
        let length = Length {
            total: n,
            prefill: n,
        };
        // As the checkpoint's config.json has it.
        let method = json!({"name": "qwen", "rope": {"kind": "dynamic_ntk"}, "logn": true});
        let method: Method = serde_json::from_value(method).unwrap();
        let plan = model.plan(&method, length).unwrap();
        let (mut sum, mut largest) = (0f64, 0f64);
        for (sequence, ids) in ids.chunks(n).enumerate() {
            let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            let got = model.nll(&ids, &plan).unwrap();
            let want = &nll[sequence * (n - 1)..(sequence + 1) * (n - 1)];
            assert_eq!(got.len(), want.len());
            for (i, (&got, want)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(error < NLL.1, "{name} token {i}: {got} against {want}");
                sum += error;
                largest = largest.max(error);
            }
            let hidden = model.hidden(&ids, &plan).unwrap();
            let last = hidden.slice([n - 1..n, 0..model.config().hidden_size]);
            let got: Vec<f32> = model.logits(last).into_data().try_to_vec().unwrap();
            let want = &logits[sequence * vocabulary..(sequence + 1) * vocabulary];
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                assert!(error < LOGIT, "{name} logits: {got} against {want}");
            }
        }
        let mean = sum / nll.len() as f64;
        println!("{name}: mean error {mean:.2e}, largest {largest:.2e}");
        assert!(mean < NLL.0, "{name}: mean error {mean}");
    }
}
