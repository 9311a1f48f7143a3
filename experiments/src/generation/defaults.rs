//! `generation_config.json`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use longspan_data::{ChatFormat, Tokenizer};
use longspan_model::Sampler;
use serde::Deserialize;

use super::Generation;

/// The defaults of generation in a model's folder. Without them, generation is greedy, and sampling
/// draws from the whole vocabulary.
pub struct Defaults {
    file: File,
    /// Form of the prompts of a conversation, if the folder gives it.
    pub format: Option<ChatFormat>,
    /// Tokens of system prompt and history (Qwen's default).
    pub window: usize,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
}

/// The fields that are used.
#[derive(Default, Deserialize)]
struct File {
    chat_format: Option<String>,
    max_window_size: Option<usize>,
    max_new_tokens: Option<usize>,
    #[serde(default)]
    do_sample: bool,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    repetition_penalty: Option<f64>,
    eos_token_id: Option<Ends>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Ends {
    One(u32),
    Several(Vec<u32>),
}

impl File {
    /// Checks the numbers; a temperature or `top_p` of 0, which files may have, means greedy.
    fn check(&self) -> Result<()> {
        let at_least_zero = [("temperature", self.temperature), ("top_p", self.top_p)];
        for (field, value) in at_least_zero {
            ensure!(
                value.is_none_or(|x| x.is_finite() && x >= 0.0),
                "{field} is {}; a number of at least 0 is expected",
                value.unwrap_or_default()
            );
        }
        ensure!(
            self.top_p.is_none_or(|x| x <= 1.0),
            "top_p is {}; a number up to 1 is expected",
            self.top_p.unwrap_or_default()
        );
        ensure!(
            self.repetition_penalty
                .is_none_or(|x| x.is_finite() && x > 0.0),
            "repetition_penalty is {}; a number above 0 is expected",
            self.repetition_penalty.unwrap_or_default()
        );
        Ok(())
    }
}

impl Defaults {
    /// Reads the file of a model's folder; it is optional.
    ///
    /// # Errors
    /// A file that is not JSON, or a field of the wrong type or out of range.
    pub fn of(model: &str) -> Result<Self> {
        let path = Path::new(model).join("generation_config.json");
        let name = || path.display().to_string();
        let file: File = if path.exists() {
            let text = std::fs::read_to_string(&path).with_context(name)?;
            serde_json::from_str(&text).with_context(name)?
        } else {
            File::default()
        };
        file.check().with_context(name)?;
        let format = file.chat_format.as_deref().map(str::parse).transpose();
        Ok(Defaults {
            format: format
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("{}: chat_format", name()))?,
            window: file.max_window_size.unwrap_or(6144),
            max_new_tokens: file.max_new_tokens.unwrap_or(512).max(1),
            file,
        })
    }

    /// The sampler of the options; those that are `None` come from the file.
    pub fn sampler(&self, options: &Generation) -> Sampler {
        let file = &self.file;
        let asked =
            options.temperature.is_some() || options.top_k.is_some() || options.top_p.is_some();
        let sample = (asked || file.do_sample) && !options.greedy;
        let temperature = options.temperature.or(file.temperature).unwrap_or(1.0);
        let mut sampler = Sampler::greedy().seeded(options.seed);
        if sample {
            sampler.temperature = temperature;
        }
        sampler.top_k = options.top_k.or(file.top_k).unwrap_or(0);
        sampler.top_p = options.top_p.or(file.top_p).unwrap_or(1.0);
        let penalty = options.repetition_penalty.or(file.repetition_penalty);
        sampler.repetition_penalty = penalty.unwrap_or(1.0);
        sampler
    }

    /// Tokens that end a text.
    pub fn ends(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match &self.file.eos_token_id {
            Some(Ends::One(id)) => vec![*id],
            Some(Ends::Several(ids)) => ids.clone(),
            None => vec![tokenizer.end_of_text()],
        }
    }
}
