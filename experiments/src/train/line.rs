//! One line of `train.jsonl`, and the sums over the steps it covers.

use std::collections::BTreeMap;

use longspan_model::StepLoss;
use serde::{Deserialize, Serialize};

use super::probe::ProbeResults;

/// A line: averages over the steps since the previous one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Steps done.
    pub step: u64,
    /// Tokens scored since the start of the training.
    pub tokens: u64,
    /// Seconds spent in steps since the start of the training.
    pub seconds: f64,
    /// Weighted mean loss, nats per token.
    pub loss: f64,
    /// Largest gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Unweighted mean loss by source, nats per token.
    pub sources: BTreeMap<String, f64>,
    /// Results of the probe after this step, if one was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeResults>,
}

impl Line {
    /// Progress message.
    pub fn brief(&self) -> String {
        let mut text = format!(
            "step {}, loss {:.3}, {:.0} tokens/s",
            self.step, self.loss, self.tokens_per_second
        );
        if let Some(probe) = &self.probe {
            text += &format!(", {probe}");
        }
        text
    }
}

/// Sums over the steps of the next line.
#[derive(Default)]
pub struct StepSums {
    steps: u64,
    loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    seconds: f64,
    tokens: u64,
    sources: BTreeMap<String, (f64, u64)>,
}

impl StepSums {
    /// Adds a step; `names` are the sources of its sequences, in order.
    pub fn add<'a>(
        &mut self,
        step: &StepLoss,
        names: impl Iterator<Item = &'a str>,
        learning_rate: f64,
        seconds: f64,
    ) {
        self.steps += 1;
        self.loss += step.loss;
        self.gradient_norm = self.gradient_norm.max(step.gradient_norm);
        self.learning_rate = learning_rate;
        self.seconds += seconds;
        for (name, nll) in names.zip(&step.nll) {
            let (sum, count) = self.sources.entry(name.to_owned()).or_default();
            *sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
            *count += nll.len() as u64;
            self.tokens += nll.len() as u64;
        }
    }

    /// The line after `step` steps, given the tokens and seconds up to the previous line.
    pub fn finish(
        self,
        step: u64,
        (tokens, seconds): (u64, f64),
        probe: Option<ProbeResults>,
    ) -> Line {
        let mean = |(sum, count): (f64, u64)| sum / count.max(1) as f64;
        Line {
            step,
            tokens: tokens + self.tokens,
            seconds: seconds + self.seconds,
            loss: self.loss / self.steps.max(1) as f64,
            gradient_norm: self.gradient_norm,
            learning_rate: self.learning_rate,
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            sources: (self.sources.into_iter())
                .map(|(name, sum)| (name, mean(sum)))
                .collect(),
            probe,
        }
    }
}
