//! Turns `schedule.minutes` into a number of steps.

use std::time::Instant;

use anyhow::Result;
use longspan_data::Tokenizer;
use longspan_model::Trainer;

use super::config::TrainConfig;
use super::mixture::Mixture;

/// Steps of each phase that are timed.
const MEASURED_STEPS: u64 = 6;

/// Resolution at which the start of a phase is found.
const SCALE: u64 = 1_000_000;

/// The number of steps that take `minutes`, extrapolated from the first steps of each phase. The
/// trainer is a throwaway one.
///
/// # Errors
/// A step fails.
pub fn steps_in(
    minutes: f64,
    config: &TrainConfig,
    mixture: &Mixture,
    tokenizer: &Tokenizer,
    mut trainer: Trainer,
) -> Result<u64> {
    let (mut start, mut per_step) = (0.0, 0.0);
    for phase in &config.phases {
        let first = (start * SCALE as f64) as u64;
        let mut began = Instant::now();
        for step in first..=first + MEASURED_STEPS {
            // The step before is a warmup.
            if step == first + 1 {
                began = Instant::now();
            }
            let drawn = mixture.draw(config, step, SCALE, tokenizer);
            trainer.step(&drawn.batches, drawn.method, 1e-6)?;
        }
        let seconds = began.elapsed().as_secs_f64() / MEASURED_STEPS as f64;
        per_step += seconds * (phase.until - start);
        start = phase.until;
    }
    let steps = ((minutes * 60.0 / per_step) as u64).max(1);
    log::info!("{minutes} minutes at {per_step:.3} s a step: {steps} steps");
    Ok(steps)
}
