//! Reads a training config and checks it. Messages name keys by their dotted path.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use longspan_attention::{Method, Model};
use longspan_data::BUILTIN_ARTICLES;
use longspan_model::Initial;
use longspan_rope::{Length, Rope};

use super::config::{Phase, ProbeConfig, Sizes, SourceConfig, SourceKind, TrainConfig};
use crate::config::{prepare_methods, read};
use crate::tasks::template;

/// Shortest sequence that every kind of source can fill, in tokens.
const SHORTEST: usize = 8;

/// Checks that a key is finite and `good`.
fn number(key: &str, value: f64, good: bool, wanted: &str) -> Result<()> {
    ensure!(value.is_finite() && good, "{key} = {value}; give {wanted}");
    Ok(())
}

impl TrainConfig {
    /// Reads a config, applies `KEY=VALUE` overrides and checks the result.
    ///
    /// # Errors
    /// A key that is unknown, missing, out of range or in contradiction to another.
    pub fn load(path: &Path, set: &[String]) -> Result<Self> {
        let mut config: TrainConfig = read(path, set)?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// Checks what needs no text and no vocabulary, and reads the files that options of methods
    /// name.
    ///
    /// # Errors
    /// A value that is out of range or contradicts another.
    pub fn check(&mut self) -> Result<()> {
        self.check_model()?;
        self.check_initial()?;
        self.check_optimizer()?;
        self.check_schedule()?;
        for i in 0..self.sources.len() {
            self.check_source(i)?;
        }
        self.check_phases()?;
        for (i, phase) in self.phases.iter_mut().enumerate() {
            let geometry = Model {
                rope: Rope {
                    dim: self.model.head_dim,
                    base: self.model.rope_base,
                    trained: self.model.trained,
                },
                layers: self.model.layers,
            };
            check_attention(phase, &geometry).with_context(|| format!("phase.{i}.attention"))?;
        }
        match &self.probe {
            Some(probe) => check_probe(probe, self.schedule.log_every),
            None => Ok(()),
        }
    }

    fn check_model(&self) -> Result<()> {
        let model = &self.model;
        for (key, value, least, most) in [
            ("layers", model.layers, 1, 4096),
            ("heads", model.heads, 1, 4096),
            ("head_dim", model.head_dim, 2, 4096),
            ("ffn", model.ffn, 1, 1 << 23),
            ("trained", model.trained, SHORTEST, 1 << 31),
        ] {
            ensure!(
                (least..=most).contains(&value),
                "model.{key} = {value}; give {least} to {most}"
            );
        }
        ensure!(
            model.head_dim.is_multiple_of(2),
            "model.head_dim = {}; rotation needs an even head size",
            model.head_dim
        );
        let base = model.rope_base;
        number("model.rope_base", base, base > 1.0, "a number above 1")
    }

    fn check_initial(&self) -> Result<()> {
        let (initial, model) = (&self.initial, &self.model);
        for (key, value) in [
            ("matrices", initial.matrices),
            ("embedding", initial.embedding),
            ("head", initial.head),
            ("offset_bias", initial.offset_bias),
        ] {
            let key = format!("initial.{key}");
            number(&key, value, value > 0.0, "a number above 0")?;
        }
        check_heads("offsets", initial.offsets.iter().map(Vec::len), model)?;
        check_heads("fades", initial.fades.iter().map(Vec::len), model)?;
        for (layer, offsets) in initial.offsets.iter().enumerate() {
            for offset in offsets {
                ensure!(
                    *offset < model.trained,
                    "initial.offsets.{layer}: {offset} tokens back, model.trained = {}",
                    model.trained
                );
            }
        }
        let planes = model.head_dim / 2;
        ensure!(
            initial.offsets.is_empty() || (1..=planes).contains(&initial.offset_planes),
            "initial.offset_planes = {}, but model.head_dim = {} makes {planes} planes; \
             give 1 to {planes}",
            initial.offset_planes,
            model.head_dim
        );
        for (layer, fades) in initial.fades.iter().enumerate() {
            for &nats in fades {
                let key = format!("initial.fades.{layer}");
                number(&key, nats, nats >= 0.0, "nats, 0 or more")?;
            }
        }
        let plane = Initial::fade_plane(model.rope_base, model.head_dim, model.trained);
        let first = if initial.offsets.is_empty() {
            0
        } else {
            initial.offset_planes
        };
        ensure!(
            initial.fades.is_empty() || plane.is_some_and(|plane| plane >= first),
            "initial.fades needs a plane beyond the first {first} (initial.offset_planes) that \
             turns by at most a quarter in model.trained = {} tokens; raise model.rope_base = {} \
             or lower initial.offset_planes",
            model.trained,
            model.rope_base
        );
        Ok(())
    }

    fn check_optimizer(&self) -> Result<()> {
        let optimizer = &self.optimizer;
        for (key, value) in [("beta_1", optimizer.beta_1), ("beta_2", optimizer.beta_2)] {
            // The optimizer computes in f32.
            let good = (0.0..1.0).contains(&(value as f32));
            let key = format!("optimizer.{key}");
            number(&key, value, good, "a number from 0 to below 1")?;
        }
        // Smaller numbers are 0 in f32, in which the optimizer computes.
        let epsilon = optimizer.epsilon;
        let good = epsilon as f32 > 0.0;
        number("optimizer.epsilon", epsilon, good, "a number above 1e-45")?;
        let decay = optimizer.weight_decay;
        let good = decay >= 0.0;
        number("optimizer.weight_decay", decay, good, "0 or more")?;
        let clip = optimizer.clip;
        number("optimizer.clip", clip, clip > 0.0, "a number above 0")
    }

    fn check_schedule(&self) -> Result<()> {
        let schedule = &self.schedule;
        ensure!(
            schedule.steps.is_some() != schedule.minutes.is_some(),
            "schedule: give either steps or minutes"
        );
        if let Some(minutes) = schedule.minutes {
            let good = minutes > 0.0;
            number("schedule.minutes", minutes, good, "a number above 0")?;
        }
        if let Some(steps) = schedule.steps {
            ensure!(steps > 0, "schedule.steps = 0; give 1 or more");
            schedule.check_warmup(steps)?;
        }
        ensure!(
            schedule.accumulate > 0,
            "schedule.accumulate = 0; give 1 or more"
        );
        let (high, low) = (schedule.learning_rate, schedule.final_learning_rate);
        let good = high > 0.0;
        number("schedule.learning_rate", high, good, "a number above 0")?;
        let wanted = format!("a number from 0 to learning_rate = {high}");
        let good = (0.0..=high).contains(&low);
        number("schedule.final_learning_rate", low, good, &wanted)?;
        let (log_every, save_every) = (schedule.log_every, schedule.save_every);
        ensure!(
            log_every > 0,
            "schedule.log_every = 0; give 1 or more steps"
        );
        ensure!(
            save_every > 0 && save_every.is_multiple_of(log_every),
            "schedule.save_every = {save_every}; give a multiple of log_every = {log_every}"
        );
        Ok(())
    }

    fn check_source(&self, i: usize) -> Result<()> {
        let SourceConfig { name, kind } = &self.sources[i];
        let earlier = &self.sources[..i];
        ensure!(
            earlier.iter().all(|other| other.name != *name),
            "source.{i}.name: two sources are named {name:?}; make them differ"
        );
        match kind {
            SourceKind::Text {
                path, documents, ..
            } => {
                ensure!(
                    *documents != Some(0),
                    "source.{i}.documents = 0; give 1 or more"
                );
                ensure!(
                    path != BUILTIN_ARTICLES || documents.is_some(),
                    "source.{i}.path = {path:?} has no end; limit it with documents = 100 or \
                     another number"
                );
            }
            SourceKind::Recall {
                tasks,
                haystack,
                answer_weight,
            } => {
                ensure!(!tasks.is_empty(), "source.{i}.tasks is empty; name a task");
                for name in tasks {
                    template(name).with_context(|| format!("source.{i}.tasks"))?;
                }
                self.check_texts(&format!("source.{i}.haystack"), haystack)?;
                let (key, weight) = (format!("source.{i}.answer_weight"), *answer_weight);
                number(&key, weight, weight > 0.0, "a number above 0")?;
            }
            SourceKind::Pairs {} => {}
            SourceKind::Echo { from } => self.check_texts(&format!("source.{i}.from"), from)?,
        }
        Ok(())
    }

    /// Checks that a key names text sources.
    fn check_texts(&self, key: &str, names: &[String]) -> Result<()> {
        ensure!(
            !names.is_empty(),
            "{key} is empty; name a source of kind text"
        );
        for name in names {
            let is_text = |source: &SourceConfig| {
                source.name == *name && matches!(source.kind, SourceKind::Text { .. })
            };
            ensure!(
                self.sources.iter().any(is_text),
                "{key} names {name:?}, which is not a source of kind text"
            );
        }
        Ok(())
    }

    fn check_phases(&self) -> Result<()> {
        ensure!(
            !self.phases.is_empty(),
            "no [[phase]]; add one with until = 1.0"
        );
        let trained = self.model.trained;
        let batch_tokens = self.schedule.batch_tokens;
        let mut start = 0.0;
        for (i, phase) in self.phases.iter().enumerate() {
            let (until, last) = (phase.until, i + 1 == self.phases.len());
            ensure!(
                until > start && until <= 1.0 && (!last || until == 1.0),
                "phase.{i}.until = {until} after {start}; each phase ends after the one before, \
                 the last at 1.0"
            );
            start = until;
            ensure!(!phase.lengths.is_empty(), "phase.{i}.lengths is empty");
            for &length in &phase.lengths {
                ensure!(
                    (SHORTEST..=trained).contains(&length),
                    "phase.{i}.lengths: {length}; give {SHORTEST} to model.trained = {trained}"
                );
                ensure!(
                    length <= batch_tokens,
                    "phase.{i}.lengths: {length} is more than schedule.batch_tokens = \
                     {batch_tokens}"
                );
            }
            check_weights(
                &format!("phase.{i}.mixture"),
                phase.mixture.values().copied(),
            )?;
            for name in phase.mixture.keys() {
                ensure!(
                    self.sources.iter().any(|source| source.name == *name),
                    "phase.{i}.mixture names {name:?}, and no [[source]] has that name"
                );
            }
            check_weights(
                &format!("phase.{i}.attention: share"),
                phase.attention.iter().map(|attention| attention.share),
            )?;
        }
        ensure!(
            (self.phases.iter()).any(|phase| phase.lengths.contains(&trained)),
            "model.trained = {trained} is not in the lengths of any phase; give the longest one"
        );
        Ok(())
    }
}

/// Checks that weights are valid and at least one is above 0.
fn check_weights(key: &str, weights: impl Iterator<Item = f64> + Clone) -> Result<()> {
    for weight in weights.clone() {
        number(key, weight, weight >= 0.0, "weights of 0 or more")?;
    }
    ensure!(
        weights.sum::<f64>() > 0.0,
        "{key}: no weight is above 0; give at least one"
    );
    Ok(())
}

/// Checks that a list of heads by layer fits the model. `layers` yields heads listed per layer.
fn check_heads(
    key: &str,
    layers: impl ExactSizeIterator<Item = usize>,
    model: &Sizes,
) -> Result<()> {
    ensure!(
        layers.len() <= model.layers,
        "initial.{key} has {} layers, model.layers = {}",
        layers.len(),
        model.layers
    );
    for (layer, heads) in layers.enumerate() {
        ensure!(
            heads <= model.heads,
            "initial.{key}.{layer} has {heads} heads, model.heads = {}",
            model.heads
        );
    }
    Ok(())
}

/// Checks that the methods of a phase can be planned at all lengths of the phase.
fn check_attention(phase: &mut Phase, geometry: &Model) -> Result<()> {
    let mut methods: Vec<Method> = (phase.attention.iter())
        .map(|attention| attention.method.clone())
        .collect();
    prepare_methods(&mut methods)?;
    for (attention, method) in phase.attention.iter_mut().zip(methods) {
        for &length in &phase.lengths {
            let plan = method.plan(geometry, Length::whole(length));
            plan.with_context(|| format!("method {:?}", method.name))?;
        }
        attention.method = method;
    }
    Ok(())
}

fn check_probe(probe: &ProbeConfig, log_every: u64) -> Result<()> {
    ensure!(
        probe.every > 0 && probe.every.is_multiple_of(log_every),
        "probe.every = {}; give a multiple of schedule.log_every = {log_every}",
        probe.every
    );
    ensure!(
        !probe.text.is_empty(),
        "probe.text is empty; name a held-out text, which is also the haystack of probe.tasks"
    );
    ensure!(probe.trials > 0, "probe.trials = 0; give 1 or more");
    for name in &probe.tasks {
        template(name).context("probe.tasks")?;
    }
    Ok(())
}
