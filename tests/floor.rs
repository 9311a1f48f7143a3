//! The floor of runs on the built-in articles, from the config to the table.

mod shared;

use longspan_data::{Article, held_out_articles};
use serde_json::Value;
use shared::{fail, records, succeed, workspace};

const ARTICLES: [&str; 2] = ["--set", "data.path=\"builtin:articles\""];

/// What `floor.json` gives for a protocol: (length, nats per token).
fn floors(run: &std::path::Path, protocol: &str) -> Vec<(usize, f64)> {
    let text = std::fs::read_to_string(run.join("floor.json")).unwrap();
    let floors: Vec<Value> = serde_json::from_str(&text).unwrap();
    let floors = floors.iter().filter(|floor| floor["protocol"] == protocol);
    floors
        .map(|floor| {
            let length = floor["length"].as_u64().unwrap();
            (length as usize, floor["nll"].as_f64().unwrap())
        })
        .collect()
}

/// Nats of the pieces in the last `scored` of the `length` bytes from `start` on, given those bytes.
fn nats(article: &Article, start: usize, length: usize, scored: usize) -> f64 {
    let pieces = article.nll(start);
    let pieces = pieces.take_while(|piece| piece.0.end <= start + length);
    pieces
        .filter(|piece| piece.0.start >= start + length - scored)
        .map(|piece| piece.1)
        .sum()
}

#[test]
fn the_floor_lies_below_every_model_and_falls_with_length() {
    let perplexity = "lengths = [512, 2048, 8192]\nmax_tokens = 16384\nlast = 400\nstride = 1000\n\
         protocol = [\"last_k\", \"packed\", \"sliding\"]";
    let dir = workspace(perplexity);
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let other_methods = config.find("[[method]]\nname = \"ntk").unwrap();
    std::fs::write(&path, &config[..other_methods]).unwrap();
    let stdout = succeed(dir.path(), &[&["run", "run.toml"][..], &ARTICLES].concat());
    let run = dir.path().join("runs/run");
    assert_eq!(stdout.matches("| floor (exact) ").count(), 3, "{stdout}");
    assert!(stdout.contains("- floor (exact): "), "{stdout}");
    let articles: Vec<Article> = held_out_articles().take(2).collect();
    for protocol in ["last_k", "packed", "sliding"] {
        let floors = floors(&run, protocol);
        assert_eq!(floors.len(), 3);
        for record in records(&run)
            .iter()
            .filter(|record| record["protocol"] == protocol)
        {
            let (_, floor) = *(floors.iter())
                .find(|floor| record["length"].as_u64() == Some(floor.0 as u64))
                .unwrap();
            assert!(
                0.1 < floor && floor < record["nll"].as_f64().unwrap(),
                "{record}"
            );
        }
        let nll: Vec<f64> = floors.iter().map(|floor| floor.1).collect();
        assert!(
            nll.iter().rev().is_sorted() && nll[0] > nll[2],
            "{protocol}: {floors:?}"
        );
        // In a vocabulary of bytes a token is a byte.
        for (length, nll) in floors {
            let expected = match protocol {
                "last_k" => {
                    let of_article = |article: &Article| {
                        nats(article, article.text.len() - length, length, 400) / 400.0
                    };
                    articles.iter().map(of_article).sum::<f64>() / 2.0
                }
                "packed" => {
                    let windows = 16384 / length;
                    let sum: f64 = (0..windows)
                        .map(|k| nats(&articles[0], k * length, length, length - 1))
                        .sum();
                    sum / (windows * (length - 1)) as f64
                }
                _ => {
                    let windows = 16384 / length / 2;
                    let of_window = |article: &Article, k: usize| match k {
                        0 => nats(article, 0, length, length - 1) / (length - 1) as f64,
                        _ => {
                            let scored = 1000.min(length - 1);
                            nats(article, k * 1000, length, scored) / scored as f64
                        }
                    };
                    let of_article = |article| (0..windows).map(move |k| of_window(article, k));
                    let sum: f64 = articles.iter().flat_map(of_article).sum();
                    sum / (2 * windows) as f64
                }
            };
            assert!(
                (nll - expected).abs() < 1e-6,
                "{protocol}, {length}: {nll}, {expected}"
            );
        }
    }

    let csv = std::fs::read_to_string(run.join("table.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 9 + 9);
    let svg = std::fs::read_to_string(run.join("ppl.svg")).unwrap();
    assert!(svg.contains("\nfloor\n"), "no floor in the legend");

    // A report finds them again.
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
