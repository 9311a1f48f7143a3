//! From the losses of windows to one number and its error.

use serde::{Deserialize, Serialize};

use super::Window;

/// How the losses become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Every scored token counts the same.
    Tokens,
    /// Every window counts the same, however many tokens it scores.
    Windows,
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
    /// The unit that the standard error takes as independent: `groups` (documents or windows), or
    /// `tokens` when there is only one group.
    pub se_over: SeOver,
}

/// Unit of the standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeOver {
    /// Windows (packed, half) or documents.
    Groups,
    /// Single tokens, where there is one group only: too small an error.
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

/// The mean loss of a cell and its error; `nll[w]` holds the losses of positions `1..` of window
/// `w`.
pub fn score(average: Average, windows: &[Window], nll: &[&[f32]]) -> Score {
    // (group, sum, weight) of each window: with weights 1 and window means, the same formulas give
    // the mean over windows.
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

    // Residuals are summed within groups: what a group shares counts once.
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
