//! The figure of a training: losses, recall and held-out perplexity over the tokens trained on.

use super::config::TrainConfig;
use super::line::Line;
use crate::draw::{LossFigure, LossPanel, Scale, Series};

/// The moving average of the losses spans 1 in this many lines of the log, on each side.
const SMOOTHING: usize = 80;

/// The figure of a training; `None` if no loss is finite.
pub fn figure(name: &str, lines: &[Line], config: &TrainConfig) -> Option<LossFigure> {
    let last = lines.iter().rfind(|line| line.loss.is_finite())?;
    let probe = config.probe.as_ref();
    let sources: Vec<&str> = (config.sources.iter())
        .map(|source| source.name.as_str())
        .collect();

    let mut losses = vec![series("total, weighted", 0, lines, |line| Some(line.loss))];
    losses.extend(sources.iter().enumerate().map(|(i, &source)| {
        series(source, i + 1, lines, |line| {
            line.sources.get(source).copied()
        })
    }));
    losses.retain(|series| !series.points.is_empty());

    let mut recall: Vec<Series> = Vec::new();
    for task in probe.iter().flat_map(|probe| &probe.tasks) {
        recall.push(series(task, recall.len(), lines, |line| {
            Some(100.0 * line.probe.as_ref()?.recall.get(task)?)
        }));
    }

    let mut perplexity: Vec<Series> = Vec::new();
    for text in probe.iter().flat_map(|probe| probe.text.keys()) {
        // A text that is also a source keeps its pen.
        let source = sources.iter().position(|source| source == text);
        let pen = source.unwrap_or(sources.len() + perplexity.len()) + 1;
        perplexity.push(series(text, pen, lines, |line| {
            line.probe.as_ref()?.perplexity.get(text).copied()
        }));
    }

    let smoothing = lines.len() / SMOOTHING;
    let panel = |title: &str, scale, smoothing, series| LossPanel {
        title: title.to_owned(),
        scale,
        smoothing,
        series,
    };
    let schedule = &config.schedule;
    let every = schedule.log_every;
    let means = match smoothing as u64 {
        0 => format!("losses: means over {every} steps"),
        half => format!(
            "losses: means over {} steps, pale: over {every}",
            (2 * half + 1) * every
        ),
    };
    let steps = schedule.steps.unwrap_or(last.step) as f64;
    let phases = config.phases.iter().filter(|phase| phase.until < 1.0);
    Some(LossFigure {
        title: format!("training of {name}"),
        subtitle: format!(
            "sequences of up to {} tokens; {means}",
            config.model.trained
        ),
        phase_ends: phases
            .filter_map(|phase| {
                let ended = |line: &&Line| line.step as f64 >= phase.until * steps;
                lines.iter().find(ended).map(millions)
            })
            .collect(),
        panels: vec![
            panel("loss (nats per token)", Scale::Linear, smoothing, losses),
            panel("recall (%)", Scale::Percent, 0, recall),
            panel("held-out perplexity", Scale::Log, 0, perplexity),
        ],
    })
}

/// Millions of tokens, the horizontal axis.
fn millions(line: &Line) -> f64 {
    line.tokens as f64 / 1e6
}

fn series(name: &str, pen: usize, lines: &[Line], value: impl Fn(&Line) -> Option<f64>) -> Series {
    Series {
        name: name.to_owned(),
        pen,
        points: (lines.iter())
            .filter_map(|line| Some((millions(line), value(line)?)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second of two sources is not in the last phase.
    const CONFIG: &str = r#"
        tokenizer = "none"
        model = { layers = 1, heads = 1, head_dim = 8, ffn = 8, trained = 16 }
        schedule = { steps = 100, batch_tokens = 16, learning_rate = 1.0, final_learning_rate = 1.0, warmup = 1 }
        source = [{ name = "text", kind = "text", path = "none" }, { name = "pairs", kind = "pairs" }]
        phase = [
            { until = 0.5, lengths = [8], mixture = { text = 1.0, pairs = 1.0 } },
            { until = 1.0, lengths = [16], mixture = { text = 1.0 } },
        ]
        probe = { every = 10, tasks = ["fact"], text = { text = "none", other = "none" } }
    "#;

    fn line(step: u64, rest: &str) -> Line {
        let tokens = 16_000 * step;
        let line = format!(
            r#"{{"step": {step}, "tokens": {tokens}, "seconds": 1, "loss": 2, "gradient_norm": 1,
                "learning_rate": 1, "tokens_per_second": 1, {rest}}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    fn svg(lines: &[Line]) -> String {
        let figure = figure("this", lines, &toml::from_str(CONFIG).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        figure.paint().unwrap().save(dir.path(), "loss").unwrap();
        assert!(path("loss.png").metadata().unwrap().len() > 1000);
        std::fs::read_to_string(path("loss.svg")).unwrap()
    }

    #[test]
    fn an_empty_log_has_no_figure() {
        let config = toml::from_str(CONFIG).unwrap();
        assert!(figure("this", &[], &config).is_none());
        let mut line = line(10, r#""sources": {}"#);
        line.loss = f64::NAN;
        assert!(figure("this", &[line], &config).is_none());
    }

    #[test]
    fn one_line_without_a_probe_is_one_panel() {
        let svg = svg(&[line(10, r#""sources": {"text": 3.0}"#)]);
        for there in ["training of this", "loss (nats per token)", "text", "0.15"] {
            assert!(svg.contains(there), "{there}");
        }
        for not_there in ["pairs", "recall (%)", "held-out", "a phase ends"] {
            assert!(!svg.contains(not_there), "{not_there}");
        }
    }

    #[test]
    fn phases_end_at_their_tokens_and_texts_have_the_pens_of_their_sources() {
        let probed = r#""sources": {"text": 3.0}, "probe":
            {"recall": {"fact": 0.25}, "perplexity": {"text": 9.0, "other": 8.0}}"#;
        let lines: Vec<Line> = (1..=10).map(|i| line(10 * i, probed)).collect();
        let figure = figure("this", &lines, &toml::from_str(CONFIG).unwrap()).unwrap();
        assert_eq!(figure.phase_ends, [0.8]);
        let [losses, recall, perplexity] = &figure.panels[..] else {
            panic!("{} panels", figure.panels.len());
        };
        assert_eq!(recall.series[0].points[9], (1.6, 25.0));
        let pens = |panel: &LossPanel| -> Vec<(String, usize)> {
            (panel.series.iter())
                .map(|series| (series.name.clone(), series.pen))
                .collect()
        };
        let named = |name: &str, pen| (name.to_owned(), pen);
        assert_eq!(pens(losses)[1], named("text", 1));
        assert_eq!(pens(perplexity), [named("other", 3), named("text", 1)]);
        let svg = svg(&lines);
        for there in ["recall (%)", "held-out perplexity", "a phase ends"] {
            assert!(svg.contains(there), "{there}");
        }
    }
}
