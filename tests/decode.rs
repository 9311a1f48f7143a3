//! Decoding with a cache against whole passes without one.

mod shared;

use burn::tensor::{Device, Tensor};
use longspan_attention::Method;
use longspan_data::{Tokenizer, held_out_articles};
use longspan_model::{
    Architecture, CacheType, DecodeError, DecodeOptions, Decoder, Sampler, Stale, Transformer,
    WeightType, sequences_together, shape, write_random_checkpoint,
};
use longspan_rope::Length;
use serde_json::{Value, json};

fn tiny() -> (Transformer, Tokenizer) {
    let folder = shared::tiny_folder();
    let model = Transformer::load(&folder, None, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::from_file(&folder.join("qwen.tiktoken")).unwrap();
    (model, tokenizer)
}

fn article(tokenizer: &Tokenizer, tokens: usize) -> Vec<u32> {
    let text = held_out_articles().next().unwrap().text;
    tokenizer.encode(&text[..8 * tokens])[..tokens].to_vec()
}

fn method(mut table: Value) -> Method {
    table["name"] = json!("tested");
    serde_json::from_value(table).unwrap()
}

fn options(capacity: usize) -> DecodeOptions {
    DecodeOptions {
        cache: CacheType::F32,
        stale: Stale::Recompute,
        capacity,
    }
}

fn losses(model: &Transformer, hidden: Tensor<2>, targets: &[u32]) -> Vec<f32> {
    let [_, width] = hidden.dims();
    let hidden = hidden.slice([0..targets.len(), 0..width]);
    values(model.loss(hidden, targets))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The last row of a tensor.
fn last(tensor: Tensor<2>) -> Vec<f32> {
    let [n, width] = tensor.dims();
    values(tensor.slice([n - 1..n, 0..width]))
}

/// The losses of tokens `1..` of `ids`, read in pieces whose sizes repeat.
fn in_pieces(
    model: &Transformer,
    method: &Method,
    options: DecodeOptions,
    ids: &[u32],
    sizes: &[usize],
) -> Vec<f32> {
    let mut decoder = Decoder::new(model, method, options).unwrap();
    let mut nll = Vec::new();
    let mut repeated = sizes.iter().cycle();
    while decoder.ids().len() < ids.len() {
        let read = decoder.ids().len();
        let end = (read + repeated.next().unwrap()).min(ids.len());
        let hidden = decoder.feed(&ids[read..end]).unwrap();
        let targets = &ids[read + 1..(end + 1).min(ids.len())];
        nll.extend(losses(model, hidden, targets));
    }
    nll
}

fn whole(model: &Transformer, method: &Method, ids: &[u32], prefill: usize) -> Vec<f32> {
    let plan = model.plan(method, length(ids.len(), prefill)).unwrap();
    model.nll(ids, &plan).unwrap()
}

fn length(total: usize, prefill: usize) -> Length {
    Length { total, prefill }
}

fn assert_close(a: &[f32], b: &[f32], limit: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() < limit,
            "{what}, token {}: {a} and {b}",
            i + 1
        );
    }
}

/// Bit for bit.
#[test]
fn sequences_together_give_the_losses_of_each_alone() {
    let (model, tokenizer) = tiny();
    for n in [1, 2, 8, 16, 17, 129] {
        let together = sequences_together(n).min(5);
        let ids = article(&tokenizer, together * n);
        let tested = method(json!({"logn": true, "window": 40, "sinks": 4}));
        let plan = model.plan(&tested, length(n, n)).unwrap();
        let alone = ids.chunks(n).flat_map(|ids| model.nll(ids, &plan).unwrap());
        assert_eq!(
            model.nll(&ids, &plan).unwrap(),
            alone.collect::<Vec<_>>(),
            "{n}"
        );
    }
}

/// Under methods that do not follow the length, pieces of any sizes give the losses of one pass.
/// Single tokens stop shortly after the widest window.
#[test]
fn pieces_give_the_losses_of_one_pass() {
    let (model, tokenizer) = tiny();
    let ids = article(&tokenizer, 450);
    for table in [
        json!({}),
        json!({"logn": true}),
        json!({"rope": {"kind": "yarn", "factor": 4.0}, "logn": {"length": "visible"}}),
        json!({"window": 40}),
        json!({"window": [16, 40, 40, 300, "full", "full"], "sinks": 4, "logn": true}),
        json!({"rope": {"kind": "dynamic_ntk", "freeze": "prefill"}, "window": [16, 40, 40, 300, "full", "full"], "sinks": 4}),
    ] {
        let tested = method(table.clone());
        let singles = if table["window"].is_array() { 310 } else { 80 };
        for (sizes, n) in [
            (&[1][..], singles),
            (&[300, 1, 17, 129], 450),
            (&[200], 200),
            (&[2, 64], 330),
        ] {
            let expected = whole(&model, &tested, &ids[..n], sizes[0]);
            let got = in_pieces(&model, &tested, options(n), &ids[..n], sizes);
            assert_close(&got, &expected, 5e-4, &format!("{table} {sizes:?}"));
        }
    }
}

/// A cache with a window holds little more than the window, however long the sequence.
#[test]
fn a_window_drops_what_no_layer_sees() {
    let (model, tokenizer) = tiny();
    let ids = article(&tokenizer, 3400);
    let tested = method(json!({"window": 100, "sinks": 3}));
    // A window of one token keeps only the sinks.
    let narrow = [json!({"window": 1}), json!({"window": 1, "sinks": 3})].map(method);
    for (tested, n) in [(&narrow[0], 2700), (&narrow[1], 2700), (&tested, 3400)] {
        let expected = whole(&model, tested, &ids[..n], n);
        let got = in_pieces(&model, tested, options(n), &ids[..n], &[2500, 1, 800]);
        assert_close(&got, &expected, 5e-4, &format!("{:?}", tested.attention));
    }
    let bytes =
        |method: &Method| Decoder::cache_bytes(model.config(), method, options(9000)).unwrap();
    let all = bytes(&Method::named("plain"));
    assert_eq!(all, 6 * 9000 * 2 * 192 * 4u64);
    assert_eq!(bytes(&tested), 6 * (3 + 200 + 2048) * 2 * 192 * 4);
    assert_eq!(bytes(&method(json!({"window": i64::MAX}))), all);
}

/// Under methods that follow the length, every state is the one of a whole pass over all tokens so
/// far.
#[test]
fn a_method_that_follows_the_length_is_followed() {
    let (model, tokenizer) = tiny();
    let ids = article(&tokenizer, 520);
    for table in [
        json!({"rope": {"kind": "dynamic_ntk"}, "logn": true}),
        json!({"rope": {"kind": "dynamic_ntk_hf"}}),
    ] {
        let tested = method(table.clone());
        let mut decoder = Decoder::new(&model, &tested, options(520)).unwrap();
        let mut read = 0;
        // Single tokens around the lengths where dynamic NTK changes.
        for end in [200, 254, 255, 256, 257, 258, 300, 511, 512, 513, 514, 520] {
            let hidden = decoder.feed(&ids[read..end]).unwrap();
            read = end;
            let plan = model.plan(&tested, length(end, end)).unwrap();
            let expected = model.hidden(&ids[..end], &plan).unwrap();
            let what = format!("{table} at {end}");
            assert_close(&last(hidden), &last(expected), 2e-3, &what);
        }
    }
}

/// Keys and values of the lowest layer do not depend on frequencies: with one layer, rotating the
/// keys again is exact.
#[test]
fn rotating_again_is_exact_in_one_layer() {
    let dir = tempfile::tempdir().unwrap();
    let config = Architecture {
        layers: 1,
        trained: 32,
        ..shape("micro").unwrap()
    };
    write_random_checkpoint(dir.path(), &config, WeightType::F32, 3, usize::MAX).unwrap();
    let model = Transformer::load(dir.path(), None, &Device::flex()).unwrap();
    let ids: Vec<u32> = (0..150).map(|i| i * 37 % 400).collect();
    let tested = method(json!({"rope": {"kind": "dynamic_ntk_hf", "factor": 2.0}}));
    let rotate = DecodeOptions {
        stale: Stale::Rotate,
        ..options(150)
    };
    for options in [rotate, options(150)] {
        let mut decoder = Decoder::new(&model, &tested, options).unwrap();
        decoder.feed(&ids[..100]).unwrap();
        decoder.feed(&ids[100..110]).unwrap();
        let hidden = decoder.feed(&ids[110..149]).unwrap();
        let expected = whole(&model, &tested, &ids[..149], 149);
        let got = losses(&model, hidden, &ids[111..149]);
        assert_close(
            &got,
            &expected[110..],
            1e-4,
            &format!("{:?}", options.stale),
        );
    }
}

/// A new prompt keeps what it has in common with the old one, and is still exact.
#[test]
fn a_prompt_keeps_what_is_common() {
    let (model, tokenizer) = tiny();
    let text = article(&tokenizer, 400);
    let other = [&text[..150], &text[260..400]].concat();
    for table in [
        json!({}),
        json!({"rope": {"kind": "dynamic_ntk", "freeze": "prefill"}}),
        json!({"window": 30}),
    ] {
        let tested = method(table.clone());
        let mut decoder = Decoder::new(&model, &tested, options(400)).unwrap();
        decoder.prompt(&text).unwrap();
        let again = decoder.prompt(&other).unwrap();
        let new = again.dims()[0];
        // A window has dropped keys that the new prompt needs, so more is read.
        if table["window"].is_null() {
            assert_eq!(new, 140, "{table}");
        } else {
            assert!(new >= 140, "{table}: {new}");
        }
        let expected = whole(&model, &tested, &other, other.len());
        let got = losses(&model, again, &other[other.len() - new + 1..]);
        assert_close(
            &got,
            &expected[expected.len() - new + 1..],
            5e-4,
            &format!("{table}"),
        );
        assert_eq!(decoder.ids(), other);
        // The same prompt again: only its last token is read.
        assert_eq!(decoder.prompt(&other).unwrap().dims()[0], 1);
    }
}

/// Greedy decoding with a cache up to 270 tokens, against whole passes at the lengths where a cache
/// may go wrong: after the prompt, around powers of two and window sizes, and where dynamic NTK and
/// LogN begin. Methods that differ only from there start shortly before.
#[test]
fn a_cache_changes_no_token() {
    let (model, tokenizer) = tiny();
    let text = article(&tokenizer, 230);
    let compared = [
        60, 61, 64, 65, 127, 128, 129, 192, 193, 230, 231, 255, 256, 257, 258, 269,
    ];
    for (prompt, table) in [
        (60, json!({})),
        (230, json!({"rope": {"kind": "dynamic_ntk"}})),
        (
            230,
            json!({"rope": {"kind": "dynamic_ntk", "freeze": "prefill"}}),
        ),
        (230, json!({"rope": {"kind": "dynamic_ntk"}, "logn": true})),
        (
            60,
            json!({"rope": {"kind": "dynamic_ntk"}, "logn": true, "window": {"layers": [64, 64, 128, 128, "full", "full"], "alpha": "per_layer"}}),
        ),
    ] {
        let tested = method(table.clone());
        let mut sampler = Sampler::greedy();
        let mut decoder = Decoder::new(&model, &tested, options(270)).unwrap();
        let mut ids = text[..prompt].to_vec();
        let mut hidden = decoder.feed(&ids).unwrap();
        while ids.len() < 270 {
            let with = decoder.logits(hidden).unwrap();
            let next = sampler.choose(&with, &ids);
            if compared.contains(&ids.len()) {
                let what = format!("{table} at {}", ids.len());
                let plan = model.plan(&tested, length(ids.len(), prompt)).unwrap();
                let without = decoder.logits(model.hidden(&ids, &plan).unwrap()).unwrap();
                assert_eq!(next, sampler.choose(&without, &ids), "{what}");
                assert_close(&with, &without, 2e-3, &what);
            }
            ids.push(next);
            hidden = decoder.feed(&[next]).unwrap();
        }
    }
}

/// Narrow caches cost little perplexity on real text.
#[test]
fn a_narrow_cache_costs_little() {
    let (model, tokenizer) = tiny();
    let Some(file) = shared::external("arxiv/eval.jsonl") else {
        return;
    };
    let documents = shared::json_lines(&file);
    let texts = documents
        .iter()
        .map(|document| document["text"].as_str().unwrap());
    let ids: Vec<u32> = texts
        .take(6)
        .flat_map(|text| tokenizer.encode(&text[5000..7000])[..256].to_vec())
        .collect();
    let perplexity = |cache| {
        let options = DecodeOptions {
            cache,
            ..options(256)
        };
        let plain = Method::named("plain");
        let nll: Vec<f32> = (ids.chunks(256))
            .flat_map(|ids| in_pieces(&model, &plain, options, ids, &[17]))
            .collect();
        (nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64).exp()
    };
    let exact = perplexity(CacheType::F32);
    for (cache, limit) in [
        (CacheType::F16, 0.001),
        (CacheType::Bf16, 0.005),
        (CacheType::Int8, 0.01),
    ] {
        let off = perplexity(cache) / exact - 1.0;
        assert!(off.abs() < limit, "{cache:?}: {off:+.5}");
    }
}

/// With a window that drops tokens. In an 8-bit cache, two devices may round a value to
/// neighbouring numbers.
#[cfg(feature = "wgpu")]
#[test]
fn a_cache_on_wgpu_gives_the_losses_of_the_cpu() {
    let Some(device) = shared::wgpu("decoding on wgpu") else {
        return;
    };
    let (on_cpu, tokenizer) = tiny();
    let folder = shared::tiny_folder();
    // WebGPU has no bf16.
    let on_gpu = Transformer::load(&folder, Some(WeightType::F32), &device).unwrap();
    let ids = article(&tokenizer, 129);
    let rope = json!({"kind": "dynamic_ntk"});
    let windows = json!([16, 40, 40, 100, "full", "full"]);
    let tested = method(json!({"rope": rope, "logn": true, "window": windows, "sinks": 4}));
    let pieces = |model: &Transformer, cache: CacheType| {
        let options = DecodeOptions {
            cache,
            ..options(129)
        };
        // Few sizes, because a GPU compiles and tunes kernels for each.
        in_pieces(model, &tested, options, &ids, &[63, 1, 1, 1])
    };
    for (cache, limit) in [(CacheType::F32, 2e-3), (CacheType::Int8, 2e-2)] {
        let [on_gpu, on_cpu] = [&on_gpu, &on_cpu].map(|model| pieces(model, cache));
        assert_close(&on_gpu, &on_cpu, limit, cache.name());
    }
    // Keys and values in half precision, stored in 8 bits.
    match on_gpu.with_activations(WeightType::F16) {
        Ok(on_gpu) => {
            let [on_gpu, on_cpu] = [&on_gpu, &on_cpu].map(|model| pieces(model, CacheType::Int8));
            assert_close(&on_gpu, &on_cpu, 5e-2, "activations in f16");
        }
        Err(error) => eprintln!("skipped: decoding with activations in f16: {error}"),
    }
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let (model, _) = tiny();
    let mut decoder = Decoder::new(&model, &Method::named("plain"), options(10)).unwrap();
    decoder.feed(&[1; 8]).unwrap();
    let error = decoder.feed(&[1; 3]).unwrap_err();
    let (tokens, capacity) = (11, 10);
    let full = DecodeError::Full { tokens, capacity };
    assert_eq!(error.to_string(), full.to_string());
    let error = decoder.feed(&[5000]).unwrap_err();
    assert!(error.to_string().contains("5000"), "{error}");
    // The calls that failed read nothing.
    assert_eq!(decoder.ids(), [1; 8]);
    decoder.feed(&[1; 2]).unwrap();
}
