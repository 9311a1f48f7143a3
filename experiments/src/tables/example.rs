//! A small run for tests of tables, figures and report.

use serde_json::Value;

use crate::config::RunConfig;
use crate::folder::{PerplexityRecord, Provenance, TaskRecord, Trial};
use crate::measure::perplexity::floor::Floor;
use crate::protocols::{ProtocolName, SeOver};

const CONFIG: &str = r#"
[model]
path = "checkpoints/Example-7B"

[data]
path = "texts/arxiv.jsonl"

[perplexity]
lengths = [1024, 2048]
protocol = ["packed", "half"]

[needle]
lengths = [1024, 2048]
depths = [0, 1]
keys = 5
tasks = ["pass-key", "fact"]
scorer = ["teacher-forced", "generate"]

[[method]]
name = "plain"

[[method]]
name = "a|b"

[[published]]
name = "theirs"
source = "their README"
method = "plain"
perplexity = { 1024 = 4.23, 4096 = 2645.09 }
"#;

/// A config with records of all its cells.
pub struct Example {
    /// The config.
    pub config: RunConfig,
    /// Two protocols, two methods, two lengths.
    pub perplexities: Vec<PerplexityRecord>,
    /// Floors of the protocol `packed`.
    pub floors: Vec<Floor>,
    /// Two tasks, two scorers, two methods, two lengths, two depths.
    pub tasks: Vec<TaskRecord>,
}

impl Example {
    /// The example.
    pub fn new() -> Self {
        let config: RunConfig = toml::from_str(CONFIG).unwrap();
        let mut perplexities = Vec::new();
        for protocol in ["packed", "half"] {
            for method in ["plain", "a|b"] {
                for length in [1024, 2048] {
                    perplexities.push(perplexity(protocol, method, length));
                }
            }
        }
        let floors = [1024, 2048].map(|length| Floor {
            protocol: ProtocolName::new("packed").unwrap(),
            length,
            nll: 1.0,
            windows: 8192 / length,
            fed: 8192,
            scored: 8192 - 8192 / length,
        });
        let mut tasks = Vec::new();
        for name in ["pass-key", "fact"] {
            for scorer in ["teacher-forced", "generate"] {
                for method in ["plain", "a|b"] {
                    for length in [1024, 2048] {
                        for depth in [0.0, 1.0] {
                            tasks.push(task(name, scorer, method, length, depth));
                        }
                    }
                }
            }
        }
        Example {
            config,
            perplexities,
            floors: floors.to_vec(),
            tasks,
        }
    }
}

fn provenance(method: &str, length: usize) -> Provenance {
    Provenance {
        key: "key".to_owned(),
        method: method.to_owned(),
        length,
        settings: Value::Null,
        model: "checkpoints/Example-7B".to_owned(),
        checkpoint: "0123456789abcdef".to_owned(),
        tokenizer: "tokenizer".to_owned(),
        data: "texts/arxiv.jsonl".to_owned(),
        data_digest: "data".to_owned(),
        dtype: "bf16".to_owned(),
        device: "cpu".to_owned(),
        trained_length: 1024,
        version: "0.1.0".to_owned(),
        seconds: 2.0,
        tokens_per_second: 4096.0,
        peak_bytes: 1000,
    }
}

/// Perplexity 4.5 at 1024 tokens, 123.4 or not finite at 2048.
fn perplexity(protocol: &str, method: &str, length: usize) -> PerplexityRecord {
    let perplexity = match (method, length) {
        ("plain", 2048) => Some(123.4),
        ("a|b", 2048) => None,
        _ => Some(4.5),
    };
    let protocol = ProtocolName::new(protocol).unwrap();
    PerplexityRecord {
        provenance: provenance(method, length),
        protocol,
        protocol_detail: format!("details of {}", protocol.name()),
        average: protocol.average(),
        prefill: None,
        pass_length: length,
        nll_file: "nll/key.safetensors".to_owned(),
        perplexity,
        nll: perplexity.map(f64::ln),
        nll_se: perplexity.map(|_| 0.01),
        se_over: SeOver::Groups,
        windows: 8192 / length,
        fed: 8192,
        scored: 8192 - 8192 / length,
    }
}

/// Everything is found at 1024 tokens, nothing at 2048.
fn task(name: &str, scorer: &str, method: &str, length: usize, depth: f64) -> TaskRecord {
    let score = if length == 1024 { 1.0 } else { 0.0 };
    let trial = Trial {
        expected: "12345".to_owned(),
        given: "12345".to_owned(),
        score,
        depth,
    };
    TaskRecord {
        provenance: provenance(method, length),
        task: name.to_owned(),
        scorer: serde_json::from_value(scorer.into()).unwrap(),
        depth,
        achieved_depth: depth,
        score,
        interval: (score / 2.0, (score + 1.0) / 2.0),
        correct: (5.0 * score) as usize,
        asked: 5,
        trials: vec![trial; 5],
    }
}
