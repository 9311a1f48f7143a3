//! Attention by the definition, in float64: the reference for every fast path.

use crate::LayerPlan;

/// Rotates the row `x` (`[d]`) by the angles `position * inv_freq`, in the half-split form of Qwen
/// and Hugging Face: component `c` turns with component `c + d/2`.
pub fn rotate(x: &[f64], position: f64, inv_freq: &[f64], scale: f64) -> Vec<f64> {
    let half = inv_freq.len();
    assert_eq!(
        x.len(),
        2 * half,
        "rotate: {} values, {half} frequencies",
        x.len()
    );
    let mut out = vec![0.0; x.len()];
    for (c, freq) in inv_freq.iter().enumerate() {
        let (sin, cos) = (position * freq).sin_cos();
        out[c] = scale * (x[c] * cos - x[c + half] * sin);
        out[c + half] = scale * (x[c + half] * cos + x[c] * sin);
    }
    out
}

/// Executes a plan for one head.
///
/// `q` is `[n][d]`, `k` and `v` are `[m][d]`, not rotated; the logits are `q k / sqrt(d)`. Returns
/// the output `[n][d]` and the log-sum-exp of the logits `[n]`. A query that sees no key gives
/// zeros and minus infinity.
pub fn attention(
    plan: &LayerPlan,
    q: &[Vec<f64>],
    k: &[Vec<f64>],
    v: &[Vec<f64>],
) -> (Vec<Vec<f64>>, Vec<f64>) {
    let d = v.first().map_or(0, Vec::len);
    let mut output = Vec::with_capacity(q.len());
    let mut log_sum_exp = Vec::with_capacity(q.len());
    for (i, query) in q.iter().enumerate() {
        let mut logits = Vec::new();
        for band in &plan.bands {
            let spectrum = &band.spectrum;
            let scale = plan.query_scale[i] * spectrum.mscale / (d as f64).sqrt();
            let query = rotate(query, band.q_position[i], &spectrum.inv_freq, scale);
            for j in band.keys[i].clone().map(|j| j as usize) {
                let position = band.k_position[j];
                let key = rotate(&k[j], position, &spectrum.inv_freq, spectrum.mscale);
                let logit: f64 = query.iter().zip(&key).map(|(a, b)| a * b).sum();
                logits.push((j, logit));
            }
        }
        let max = logits.iter().fold(f64::NEG_INFINITY, |m, l| m.max(l.1));
        let sum: f64 = logits.iter().map(|l| (l.1 - max).exp()).sum();
        let mut row = vec![0.0; d];
        for (j, logit) in &logits {
            let weight = (logit - max).exp() / sum;
            for (o, value) in row.iter_mut().zip(&v[*j]) {
                *o += weight * value;
            }
        }
        output.push(row);
        log_sum_exp.push(if logits.is_empty() {
            max
        } else {
            max + sum.ln()
        });
    }
    (output, log_sum_exp)
}
