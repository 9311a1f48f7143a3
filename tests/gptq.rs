//! GPTQ checkpoints: parity with the float64 reference, and with checkpoints that this test packs
//! in AutoGPTQ's order.

mod shared;

use std::path::Path;

use burn::tensor::Device;
use longspan_attention::Method;
use longspan_model::{
    Architecture, Quantization, Transformer, WeightType, write_checkpoint, write_random_checkpoint,
};
use longspan_rope::Length;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use shared::{Expected, Stored, find, golden, micro, read_tensors, write_tensors};

/// Mean and largest absolute error allowed on the NLL, in nats.
const NLL: (f64, f64) = (1e-4, 2e-3);
/// Largest absolute error allowed on a logit.
const LOGIT: f64 = 2e-3;

#[test]
fn packed_checkpoints_equal_the_reference() {
    packed_checkpoints_equal_the_reference_on(&Device::flex());
}

#[cfg(feature = "wgpu")]
#[test]
fn packed_checkpoints_equal_the_reference_on_wgpu() {
    if let Some(device) = shared::wgpu("golden/gptq on wgpu") {
        packed_checkpoints_equal_the_reference_on(&device);
    }
}

fn packed_checkpoints_equal_the_reference_on(device: &Device) {
    for name in ["int4", "int8"] {
        let folder = golden(&format!("gptq-{name}"));
        let model = Transformer::load(&folder, None, device).unwrap();
        assert_eq!(model.types(), name);
        let expected = Expected::read(&folder);
        let (nll, logits) = (expected.values("nll"), expected.values("logits.last"));
        let (n, vocabulary) = (129, model.config().vocab_size);
        let length = Length {
            total: n,
            prefill: n,
        };
        // The settings of the checkpoint's config.json.
        let method = json!({"name": "qwen", "rope": {"kind": "dynamic_ntk"}, "logn": true});
        let method: Method = serde_json::from_value(method).unwrap();
        let plan = model.plan(&method, length).unwrap();
        let (mut sum, mut largest) = (0f64, 0f64);
        for (sequence, ids) in expected.ids("ids").chunks(n).enumerate() {
            let got = model.nll(ids, &plan).unwrap();
            let want = &nll[sequence * (n - 1)..(sequence + 1) * (n - 1)];
            assert_eq!(got.len(), want.len());
            for (i, (&got, want)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(got) - want).abs();
                assert!(error < NLL.1, "{name} token {i}: {got} against {want}");
                sum += error;
                largest = largest.max(error);
            }
            let hidden = model.hidden(ids, &plan).unwrap();
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

/// A random model: its tensors packed in AutoGPTQ's order, and the values of all parameters by
/// name.
struct Model {
    config: Architecture,
    packed: Vec<Stored>,
    dense: Vec<(String, Vec<f32>)>,
}

/// A random model packed in groups of `group_size` inputs, or one group. With `shuffled`, the
/// inputs of a group stand anywhere.
fn model(bits: usize, group_size: Option<usize>, shuffled: bool) -> Model {
    let mut rng = StdRng::seed_from_u64(5);
    let mut config = micro();
    let dir = tempfile::tempdir().unwrap();
    write_random_checkpoint(dir.path(), &config, WeightType::F32, 4, usize::MAX).unwrap();
    config.quantization = Some(Quantization {
        bits,
        group_size,
        desc_act: shuffled,
    });
    let mut model = Model {
        config,
        packed: Vec::new(),
        dense: Vec::new(),
    };
    for tensor in read_tensors(&dir.path().join("model.safetensors")) {
        let layer = tensor.name.strip_suffix(".weight");
        match layer.filter(|layer| layer.contains(".h.") && tensor.shape.len() == 2) {
            Some(layer) => model.add_packed(layer, [tensor.shape[0], tensor.shape[1]], &mut rng),
            None => {
                let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
                let values = tensor.bytes.chunks(4).map(value).collect();
                model.dense.push((tensor.name.clone(), values));
                model.packed.push(tensor);
            }
        }
    }
    model
}

impl Model {
    /// Adds a random matrix `[outputs, inputs]`, packed and as values.
    fn add_packed(&mut self, layer: &str, [o, i]: [usize; 2], rng: &mut StdRng) {
        let quantization = self.config.quantization.as_ref().unwrap();
        let (bits, shuffled) = (quantization.bits, quantization.desc_act);
        let group = quantization.group_size.unwrap_or(i);
        let (groups, per_word, steps) = (i.div_ceil(group), 32 / bits, 1u32 << bits);
        let mut group_of: Vec<u32> = (0..i).map(|j| (j / group) as u32).collect();
        if shuffled {
            group_of.shuffle(rng);
        }
        let mut integers =
            |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_range(0..steps)).collect() };
        let (q, zeros) = (integers(i * o), integers(groups * o));
        let scale = 2.0 / (steps as f32 * (i as f32).sqrt());
        let scales: Vec<f32> = (0..groups * o)
            .map(|_| scale * rng.random_range(0.5..1.5))
            .collect();
        // [i, o] packed along the inputs; [groups, o] along the outputs, less one.
        let mut qweight = vec![0u32; i * o / per_word];
        let mut qzeros = vec![0u32; groups * o / per_word];
        let mut dense = vec![0f32; o * i];
        for j in 0..i {
            for out in 0..o {
                let g = group_of[j] as usize * o + out;
                qweight[j / per_word * o + out] |= q[j * o + out] << (bits * (j % per_word));
                dense[out * i + j] = (q[j * o + out] as f32 - zeros[g] as f32) * scales[g];
            }
        }
        for (g, zero) in zeros.iter().enumerate() {
            let stored = zero.wrapping_sub(1) & (steps - 1);
            qzeros[g / per_word] |= stored << (bits * (g % per_word));
        }
        let name = |part: &str| format!("{layer}.{part}");
        self.packed.extend([
            Stored::i32(&name("qweight"), &[i / per_word, o], &qweight),
            Stored::i32(&name("qzeros"), &[groups, o / per_word], &qzeros),
            Stored::f32(&name("scales"), &[groups, o], &scales),
        ]);
        if shuffled {
            self.packed
                .push(Stored::i32(&name("g_idx"), &[i], &group_of));
        }
        self.dense.push((name("weight"), dense));
    }

    /// The values of a parameter.
    fn values(&self, name: &str) -> Vec<f32> {
        let found = self.dense.iter().find(|tensor| tensor.0 == name);
        found.unwrap().1.clone()
    }

    /// Loss of 70 tokens under the packed checkpoint.
    fn packed_nll(&self) -> Vec<f32> {
        let dir = tempfile::tempdir().unwrap();
        write_tensors(&dir.path().join("model.safetensors"), &self.packed);
        let config = self.config.to_json().to_string();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        nll(dir.path())
    }

    /// The same under a checkpoint of its values.
    fn dense_nll(&self) -> Vec<f32> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = self.config.clone();
        config.quantization = None;
        let order = forward_order(&config);
        let values = order.iter().map(|name| self.values(name));
        write_checkpoint(dir.path(), &config, values.collect(), WeightType::F32).unwrap();
        nll(dir.path())
    }
}

/// Names of the parameters in the order of the forward pass.
fn forward_order(config: &Architecture) -> Vec<String> {
    let layers = (0..config.layers).flat_map(|layer| {
        let parts = [
            "ln_1.weight",
            "attn.c_attn.weight",
            "attn.c_attn.bias",
            "attn.c_proj.weight",
            "ln_2.weight",
            "mlp.w1.weight",
            "mlp.w2.weight",
            "mlp.c_proj.weight",
        ];
        parts.map(|part| format!("transformer.h.{layer}.{part}"))
    });
    let first = std::iter::once("transformer.wte.weight".to_owned());
    let last = ["transformer.ln_f.weight", "lm_head.weight"];
    first.chain(layers).chain(last.map(str::to_owned)).collect()
}

fn nll(folder: &Path) -> Vec<f32> {
    let model = Transformer::load(folder, None, &Device::flex()).unwrap();
    let length = Length {
        total: 70,
        prefill: 70,
    };
    let plan = model.plan(&Method::named("plain"), length).unwrap();
    let ids: Vec<u32> = (0..70).map(|i| i * i % 464).collect();
    model.nll(&ids, &plan).unwrap()
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error < 1e-4, "{what} {i}: {got} against {expected}");
    }
}

#[test]
fn groups_may_be_of_any_inputs_and_any_size() {
    for bits in [4, 8] {
        for (group_size, shuffled) in [
            (Some(16), true),
            (Some(24), true),
            (Some(20), false),
            (Some(128), true),
            (None, true),
            (None, false),
        ] {
            let model = model(bits, group_size, shuffled);
            let what = format!("{bits} bits, groups of {group_size:?}, shuffled {shuffled}");
            assert_close(&what, &model.packed_nll(), &model.dense_nll());
        }
    }
}

/// Attention weights sum to one, so a bias of the values can be moved to the projection that
/// follows.
#[test]
fn a_bias_of_any_packed_matrix_is_added() {
    let mut model = model(4, Some(16), false);
    let width = model.config.hidden_size;
    let (bias, projection) = (
        "transformer.h.1.attn.c_attn.bias",
        "transformer.h.1.attn.c_proj",
    );
    let mut of_qkv = model.values(bias);
    let matrix = model.values(&format!("{projection}.weight"));
    let expected = model.packed_nll();
    let of_values = of_qkv.split_off(2 * width);
    let products = matrix
        .chunks(width)
        .map(|row| row.iter().zip(&of_values).map(|(w, b)| w * b).sum());
    let products: Vec<f32> = products.collect();
    of_qkv.resize(3 * width, 0.0);
    *find(&mut model.packed, bias) = Stored::f32(bias, &[3 * width], &of_qkv);
    let without = model.packed_nll();
    let bias = Stored::f32(&format!("{projection}.bias"), &[width], &products);
    model.packed.push(bias);
    assert_close("with the bias", &model.packed_nll(), &expected);
    assert!(
        without
            .iter()
            .zip(&expected)
            .any(|(a, b)| (a - b).abs() > 0.01)
    );
}

#[test]
fn random_checkpoints_can_be_packed() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("int4", 0.55), ("int8", 1.05)] {
        let args = [
            "random-checkpoint",
            name,
            "--shape",
            "micro",
            "--quant",
            name,
        ];
        shared::succeed(dir.path(), &args);
        let folder = dir.path().join(name);
        let losses = nll(&folder);
        let mean = losses.iter().sum::<f32>() / losses.len() as f32;
        assert!((4.0..12.0).contains(&mean), "{name}: {mean} nats");
        // The estimate of the bytes held, per value of the layers.
        let config = Architecture::from_file(&folder.join("config.json"))
            .unwrap()
            .0;
        let packed = config.weight_bytes(WeightType::Bf16) as f64;
        let mut dense = config.clone();
        dense.quantization = None;
        let tables = 2.0 * 2.0 * (config.vocab_size * config.hidden_size) as f64;
        let of_layers = |bytes: f64| bytes - tables;
        let ratio =
            of_layers(packed) / of_layers(dense.weight_bytes(WeightType::Bf16) as f64) * 2.0;
        assert!(
            (bytes..bytes + 0.2).contains(&ratio),
            "{name}: {ratio} bytes a value"
        );
    }
}
