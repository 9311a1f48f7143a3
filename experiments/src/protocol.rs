//! Perplexity protocols: which windows of the text are fed, which of their tokens are scored, and how
//! the losses are averaged.
//!
//! All of them feed `n` tokens and score at most `n - 1`; none adds a BOS token (Qwen has none).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::config::PerplexityConfig;

/// A published way to measure perplexity at a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Documents concatenated and cut into windows of `n` tokens; all scored (Qwen's table; QwenLM/Qwen
    /// issue 206).
    Packed,
    /// The first `n` tokens of each document; all scored (what the YaRN repository's eval.sh runs).
    Truncate,
    /// A window every `stride` tokens inside a document; only newly exposed tokens scored (YaRN's
    /// eval/perplexity.py, arXiv 2309.00071). A rest shorter than the stride is left out.
    Sliding,
    /// The last `n` tokens of each document; the same last `k` scored at every length (rerope's
    /// eval_loss.py). With several windows a document, each ends `k` tokens before the one after it.
    LastK,
    /// As packed, second half of each window scored (llama.cpp's perplexity tool).
    Half,
}

/// How the losses become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Every scored token counts the same.
    Tokens,
    /// Every window counts the same, however many tokens it scores.
    Windows,
}

/// Tokens of a corpus, documents one after the other.
#[derive(Debug, Default)]
pub struct TokenStream {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Offset of each document.
    pub document_start: Vec<usize>,
    /// Place of each document in the corpus, from 0.
    pub document_number: Vec<usize>,
}

impl TokenStream {
    /// Range of a document in `ids`.
    pub fn document(&self, index: usize) -> Range<usize> {
        let end = self.document_start.get(index + 1);
        self.document_start[index]..end.copied().unwrap_or(self.ids.len())
    }
}

/// A stretch of text that is fed in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset in the stream.
    pub start: usize,
    /// Positions within the window whose loss counts; 0 is never one.
    pub scored: Range<usize>,
    /// Windows of one group are not independent: a document, or the window alone.
    pub group: usize,
}

impl Protocol {
    /// Name in configs, records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Packed => "packed",
            Protocol::Truncate => "truncate",
            Protocol::Sliding => "sliding",
            Protocol::LastK => "last_k",
            Protocol::Half => "half",
        }
    }

    /// Whether windows stay inside documents that are at least as long as the longest length.
    pub fn by_document(self) -> bool {
        matches!(
            self,
            Protocol::Truncate | Protocol::Sliding | Protocol::LastK
        )
    }

    /// How the losses are averaged.
    pub fn average(self) -> Average {
        match self {
            Protocol::Sliding => Average::Windows,
            _ => Average::Tokens,
        }
    }

    /// What is fed and scored, in words, for the head of a report.
    pub fn describe(self, config: &PerplexityConfig) -> String {
        let filter = format!(
            "documents of at least {} tokens, each on its own",
            config.longest()
        );
        let nested = if config.nested {
            format!(
                ", one window every {} tokens at every length",
                config.longest()
            )
        } else {
            String::new()
        };
        let (text, fed, scored) = match self {
            Protocol::Packed => (
                "documents concatenated".to_owned(),
                format!("disjoint windows of n tokens{nested}"),
                "all but the first token of a window".to_owned(),
            ),
            Protocol::Half => (
                "documents concatenated".to_owned(),
                format!("disjoint windows of n tokens{nested}"),
                "tokens after the middle of a window".to_owned(),
            ),
            Protocol::Truncate => (
                filter,
                "the first n tokens of each".to_owned(),
                "all but the first token".to_owned(),
            ),
            Protocol::Sliding => (
                filter,
                format!(
                    "a window of n tokens every {}, as many of each",
                    config.stride()
                ),
                "the first window whole, then the newly exposed tokens".to_owned(),
            ),
            Protocol::LastK => (
                filter,
                match config.windows() {
                    1 => "the last n tokens of each".to_owned(),
                    windows => format!(
                        "n tokens up to each of the last {windows} ends in it, {} apart",
                        config.last()
                    ),
                },
                format!("the last {}, the same at every length", config.last()),
            ),
        };
        let average = match self.average() {
            Average::Tokens => "mean over tokens",
            Average::Windows => "mean over windows, unweighted",
        };
        format!(
            "text: {text}; fed: {fed}, at most {} tokens per cell; scored: {scored}; no BOS; {average}",
            config.max_tokens
        )
    }

    /// The windows of one cell.
    pub fn windows(self, stream: &TokenStream, config: &PerplexityConfig, n: usize) -> Vec<Window> {
        let longest = config.longest();
        // As many documents at every length as fit the budget at the longest.
        let documents: Vec<(usize, Range<usize>)> = (0..stream.document_start.len())
            .map(|index| stream.document(index))
            .filter(|document| document.len() >= longest)
            .take(config.max_tokens / longest)
            .enumerate()
            .collect();
        let whole = move |start: usize, group: usize| Window {
            start,
            scored: 1..n,
            group,
        };
        match self {
            Protocol::Packed | Protocol::Half => {
                let step = if config.nested { longest } else { n };
                let budget = stream.ids.len().min(config.max_tokens);
                let first = if self == Protocol::Half { n / 2 + 1 } else { 1 };
                (0..budget / step)
                    .map(|k| Window {
                        start: k * step,
                        scored: first..n,
                        group: k,
                    })
                    .collect()
            }
            Protocol::Truncate => documents
                .into_iter()
                .map(|(group, document)| whole(document.start, group))
                .collect(),
            Protocol::LastK => {
                let last = config.last();
                let windows = documents.into_iter().flat_map(|(group, document)| {
                    let ends = (document.start + longest..=document.end)
                        .rev()
                        .step_by(last);
                    ends.take(config.windows()).map(move |end| Window {
                        start: end - n,
                        scored: n - last..n,
                        group,
                    })
                });
                windows.take(config.max_tokens / longest).collect()
            }
            Protocol::Sliding => {
                let stride = config.stride();
                let share = (config.max_tokens / n / documents.len().max(1)).max(1);
                let windows = documents.into_iter().flat_map(|(group, document)| {
                    let starts = (document.start..=document.end - n).step_by(stride);
                    starts
                        .take(share)
                        .enumerate()
                        .map(move |(k, start)| match k {
                            0 => whole(start, group),
                            _ => Window {
                                start,
                                scored: n - stride.min(n - 1)..n,
                                group,
                            },
                        })
                });
                windows.collect()
            }
        }
    }
}

/// A mean loss with its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean negative log likelihood, nats per token.
    pub nll: f64,
    /// Standard error of `nll`.
    pub nll_se: f64,
    /// Tokens whose loss counted.
    pub scored: usize,
    /// What the standard error takes as independent: `groups` (documents or windows), or `tokens` when
    /// there is only one group.
    pub se_over: SeOver,
}

/// Unit of the standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeOver {
    /// Windows (packed, half) or documents.
    Groups,
    /// Single tokens: too small an error, for want of groups.
    Tokens,
}

impl SeOver {
    /// Name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            SeOver::Groups => "groups",
            SeOver::Tokens => "tokens",
        }
    }
}

/// Averages the losses of a cell; `nll[w]` holds the losses of positions `1..` of window `w`.
pub fn score(average: Average, windows: &[Window], nll: &[&[f32]]) -> Score {
    // (group, sum, weight) of each window: with weights 1 and window means, the same formulas give the
    // mean over windows.
    let parts: Vec<(usize, f64, f64)> = windows
        .iter()
        .zip(nll)
        .map(|(window, nll)| {
            let losses = &nll[window.scored.start - 1..window.scored.end - 1];
            let sum: f64 = losses.iter().map(|&x| x as f64).sum();
            let count = losses.len() as f64;
            match average {
                Average::Tokens => (window.group, sum, count),
                Average::Windows => (window.group, sum / count, 1.0),
            }
        })
        .collect();
    let weight: f64 = parts.iter().map(|part| part.2).sum();
    let mean = parts.iter().map(|part| part.1).sum::<f64>() / weight;

    // Residuals summed within groups, so that what is shared inside a group counts once.
    let mut residuals: Vec<(usize, f64)> = Vec::new();
    for &(group, sum, count) in &parts {
        let residual = sum - mean * count;
        match residuals.last_mut() {
            Some(last) if last.0 == group => last.1 += residual,
            _ => residuals.push((group, residual)),
        }
    }
    let groups = residuals.len() as f64;
    let scored = windows.iter().map(|window| window.scored.len()).sum();
    if residuals.len() > 1 {
        let squares: f64 = residuals.iter().map(|r| r.1 * r.1).sum();
        let nll_se = (squares * groups / (groups - 1.0)).sqrt() / weight;
        return Score {
            nll: mean,
            nll_se,
            scored,
            se_over: SeOver::Groups,
        };
    }
    // One group: the variance of single losses, carried through the weights of the average.
    let tokens: Vec<f64> = windows
        .iter()
        .zip(nll)
        .flat_map(|(window, nll)| &nll[window.scored.start - 1..window.scored.end - 1])
        .map(|&x| x as f64)
        .collect();
    let token_mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
    let variance =
        tokens.iter().map(|x| (x - token_mean).powi(2)).sum::<f64>() / (tokens.len() as f64 - 1.0);
    let spread: f64 = parts
        .iter()
        .zip(windows)
        .map(|(part, window)| (part.2 / weight).powi(2) / window.scored.len() as f64)
        .sum();
    Score {
        nll: mean,
        nll_se: (variance * spread).sqrt(),
        scored,
        se_over: SeOver::Tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocols;

    fn config(lengths: &[usize]) -> PerplexityConfig {
        PerplexityConfig {
            lengths: lengths.to_vec(),
            protocol: Protocols::One(Protocol::Packed),
            max_tokens: 100,
            nested: false,
            stride: Some(3),
            last: Some(4),
            windows: None,
            prefill: None,
        }
    }

    /// Documents of 7, 30 and 20 tokens.
    fn stream() -> TokenStream {
        TokenStream {
            ids: (0..57).collect(),
            document_start: vec![0, 7, 37],
            document_number: vec![0, 1, 2],
        }
    }

    fn starts(windows: &[Window]) -> Vec<usize> {
        windows.iter().map(|window| window.start).collect()
    }

    #[test]
    fn packed_cuts_the_whole_stream_and_nested_keeps_the_starts() {
        let mut config = config(&[8, 16]);
        let windows = Protocol::Packed.windows(&stream(), &config, 8);
        assert_eq!(starts(&windows), [0, 8, 16, 24, 32, 40, 48]);
        assert!(windows.iter().all(|window| window.scored == (1..8)));
        config.nested = true;
        let windows = Protocol::Packed.windows(&stream(), &config, 8);
        assert_eq!(starts(&windows), [0, 16, 32]);
        config.max_tokens = 20;
        assert_eq!(
            starts(&Protocol::Packed.windows(&stream(), &config, 16)),
            [0]
        );
    }

    #[test]
    fn half_scores_what_llama_cpp_scores() {
        let windows = Protocol::Half.windows(&stream(), &config(&[8]), 8);
        assert_eq!(windows[1].scored, 5..8); // targets n/2 + 1 to n - 1
    }

    #[test]
    fn document_protocols_stay_inside_long_documents() {
        let config = config(&[8, 20]);
        let truncate = Protocol::Truncate.windows(&stream(), &config, 8);
        assert_eq!(starts(&truncate), [7, 37]);
        let last = Protocol::LastK.windows(&stream(), &config, 8);
        assert_eq!(starts(&last), [29, 49]);
        let target = |window: &Window| window.start + window.scored.start;
        let longer = Protocol::LastK.windows(&stream(), &config, 20);
        assert_eq!(target(&last[0]), target(&longer[0])); // the same tokens at every length
        // As many ends, 4 apart, as have 20 tokens before them: three in the first document, one in the second.
        let several = PerplexityConfig {
            windows: Some(3),
            ..config.clone()
        };
        let last = Protocol::LastK.windows(&stream(), &several, 8);
        assert_eq!(starts(&last), [29, 25, 21, 49]);
        assert_eq!(target(&last[1]) + 4, target(&last[0]));
        let longer = Protocol::LastK.windows(&stream(), &several, 20);
        assert_eq!(target(&last[2]), target(&longer[2]));
        let sliding = Protocol::Sliding.windows(&stream(), &config, 20);
        assert_eq!(starts(&sliding), [7, 10, 37]); // 100 tokens: 5 windows, 2 for each document
        assert_eq!(sliding[0].scored, 1..20);
        assert_eq!(sliding[1].scored, 17..20); // exactly the three new ones
    }

    #[test]
    fn averages_and_errors_are_those_of_the_formulas() {
        let windows = [(0, 1..4, 0), (3, 3..4, 1)].map(|(start, scored, group)| Window {
            start,
            scored,
            group,
        });
        let nll: [&[f32]; 2] = [&[1.0, 2.0, 3.0], &[9.0, 9.0, 6.0]];
        let tokens = score(Average::Tokens, &windows, &nll);
        assert_eq!((tokens.nll, tokens.scored), (3.0, 4));
        // Residuals 6 - 9 and 6 - 3: sqrt(2 * (9 + 9)) / 4.
        assert!((tokens.nll_se - 1.5).abs() < 1e-12);
        let by_window = score(Average::Windows, &windows, &nll);
        assert_eq!(by_window.nll, 4.0);
        assert!((by_window.nll_se - 2.0).abs() < 1e-12);
        let one = score(Average::Tokens, &windows[..1], &nll[..1]);
        assert_eq!((one.nll, one.se_over), (2.0, SeOver::Tokens));
        assert!((one.nll_se - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        // One document: windows of 3 and 1 tokens with losses 1, 2, 3 and 6, variance 14 / 3.
        let same = windows.map(|window| Window { group: 0, ..window });
        let one = score(Average::Windows, &same, &nll);
        let expected = (14.0f64 / 3.0 * (0.25 / 3.0 + 0.25)).sqrt();
        assert_eq!((one.nll, one.se_over), (4.0, SeOver::Tokens));
        assert!((one.nll_se - expected).abs() < 1e-12);
    }
}
