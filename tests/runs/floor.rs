//! The exact floor of runs on the built-in articles: `floor.json`, tables and figures.

use std::path::Path;

use longspan_data::{Article, held_out_articles};
use serde_json::Value;

use crate::shared::{fail, records, succeed, workspace};

/// Tokens fed at each length, a multiple of every length below.
const FED: usize = 16384;
/// Tokens scored by `last_k`, and the stride of `sliding`.
const LAST: usize = 400;
const STRIDE: usize = 1000;

/// What `floor.json` holds for a protocol: length and nats per token.
fn floors(run: &Path, protocol: &str) -> Vec<(usize, f64)> {
    let text = std::fs::read_to_string(run.join("floor.json")).unwrap();
    let floors: Vec<Value> = serde_json::from_str(&text).unwrap();
    floors
        .iter()
        .filter(|floor| floor["protocol"] == protocol)
        .map(|floor| {
            let length = floor["length"].as_u64().unwrap();
            (length as usize, floor["nll"].as_f64().unwrap())
        })
        .collect()
}

/// Nats of the pieces in the last `scored` of the `length` bytes from `start` on, given those
/// bytes.
fn nats(article: &Article, start: usize, length: usize, scored: usize) -> f64 {
    article
        .nll(start)
        .take_while(|piece| piece.0.end <= start + length)
        .filter(|piece| piece.0.start >= start + length - scored)
        .map(|piece| piece.1)
        .sum()
}

/// The floor of a protocol, computed from the articles. In a vocabulary of bytes a token is a byte.
fn floor(articles: &[Article; 2], protocol: &str, length: usize) -> f64 {
    match protocol {
        "last_k" => {
            let of_article = |article: &Article| {
                nats(article, article.text.len() - length, length, LAST) / LAST as f64
            };
            articles.iter().map(of_article).sum::<f64>() / 2.0
        }
        "packed" => {
            let windows = FED / length;
            let of_window = |k| nats(&articles[0], k * length, length, length - 1);
            (0..windows).map(of_window).sum::<f64>() / (windows * (length - 1)) as f64
        }
        "sliding" => {
            let windows = FED / length / 2;
            let of_window = |article: &Article, k: usize| {
                // The first window scores all its tokens, later ones those that are new.
                let scored = if k == 0 {
                    length - 1
                } else {
                    STRIDE.min(length - 1)
                };
                nats(article, k * STRIDE, length, scored) / scored as f64
            };
            let of_article = |article| (0..windows).map(move |k| of_window(article, k));
            let sum: f64 = articles.iter().flat_map(of_article).sum();
            sum / (2 * windows) as f64
        }
        other => panic!("no floor of {other}"),
    }
}

#[test]
fn the_floor_is_exact_and_below_the_model() {
    let dir = workspace(&format!(
        "lengths = [512, 2048, 8192]\nmax_tokens = {FED}\nlast = {LAST}\nstride = {STRIDE}\n\
         protocol = [\"last_k\", \"packed\", \"sliding\"]"
    ));
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let other_methods = config.find("[[method]]\nname = \"ntk").unwrap();
    std::fs::write(&path, &config[..other_methods]).unwrap();
    let args = ["run", "run.toml", "--set", "data.path=builtin:articles"];
    let stdout = succeed(dir.path(), &args);
    let run = dir.path().join("runs/run");
    let articles: Vec<Article> = held_out_articles().take(2).collect();
    let articles: [Article; 2] = articles.try_into().ok().unwrap();
    for protocol in ["last_k", "packed", "sliding"] {
        let floors = floors(&run, protocol);
        assert_eq!(
            floors.iter().map(|floor| floor.0).collect::<Vec<_>>(),
            [512, 2048, 8192]
        );
        for &(length, nll) in &floors {
            let expected = floor(&articles, protocol, length);
            assert!(
                (nll - expected).abs() < 1e-6,
                "{protocol}, {length}: {nll}, {expected}"
            );
            let records = records(&run);
            let record = records
                .iter()
                .find(|record| record["protocol"] == protocol && record["length"] == length);
            let model = record.unwrap()["nll"].as_f64().unwrap();
            assert!(0.1 < nll && nll < model, "{protocol}, {length}: {nll}");
        }
        // Longer contexts never hurt the best reader.
        let nll: Vec<f64> = floors.iter().map(|floor| floor.1).collect();
        assert!(
            nll.iter().rev().is_sorted() && nll[0] > nll[2],
            "{protocol}: {floors:?}"
        );
    }

    assert_eq!(stdout.matches("| floor (exact) ").count(), 3, "{stdout}");
    assert!(stdout.contains("- floor (exact): "), "{stdout}");
    let csv = std::fs::read_to_string(run.join("table.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 9 + 9);
    let svg = std::fs::read_to_string(run.join("ppl.svg")).unwrap();
    assert!(svg.contains("\nfloor\n"), "no floor in the legend");

    // A report reads them from the folder.
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);
    std::fs::write(run.join("floor.json"), "[").unwrap();
    fail(
        dir.path(),
        &["report", "runs/run"],
        &["floor.json", "damaged"],
    );
}

#[test]
fn other_text_has_no_floor() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    std::fs::create_dir_all(dir.path().join("runs/run")).unwrap();
    let stale = dir.path().join("runs/run/floor.json");
    std::fs::write(&stale, "[]").unwrap();
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    assert!(!stdout.contains("floor"), "{stdout}");
    assert!(!stale.exists());
}
