//! Chat prompts, built as in Qwen's code.

use crate::tokenizer::Tokenizer;

/// The layout of a prompt (`chat_format` in `generation_config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// `<|im_start|>role\ntext<|im_end|>` for each message, for chat models.
    ChatMl,
    /// The question alone, without system prompt and history, for base models.
    Raw,
}

impl std::str::FromStr for ChatFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "chatml" => Ok(ChatFormat::ChatMl),
            "raw" => Ok(ChatFormat::Raw),
            _ => Err(format!(
                "no chat format {name:?}; the formats are chatml and raw"
            )),
        }
    }
}

/// A conversation so far.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The layout of the prompt.
    pub format: ChatFormat,
    /// The system prompt.
    pub system: String,
    /// Questions with their answers, oldest first.
    pub history: Vec<(String, String)>,
    /// System prompt and history must have fewer tokens than this (`max_window_size`); older turns
    /// are left out.
    pub window: usize,
}

impl Chat {
    /// Token ids of the prompt for a question, as `make_context` in QwenLM's
    /// `qwen_generation_utils.py` builds it. The name of a special token inside a message is
    /// ordinary text. The history is cut to the newest turns that fit.
    pub fn prompt(&self, tokenizer: &Tokenizer, question: &str) -> Vec<u32> {
        if self.format == ChatFormat::Raw {
            return tokenizer.encode(question);
        }
        let [start, end] = Self::marks(tokenizer);
        let newline = tokenizer.encode("\n");
        let message = |role: &str, text: &str| {
            let mut ids = vec![start];
            ids.extend(tokenizer.encode(role));
            ids.extend(&newline);
            ids.extend(tokenizer.encode(text));
            ids.push(end);
            ids
        };
        let system = message("system", &self.system);
        let mut turns = Vec::new();
        let mut size = system.len();
        for (question, answer) in self.history.iter().rev() {
            let question = message("user", question);
            let turn = [&newline, &question, &newline, &message("assistant", answer)];
            let turn = turn.map(Vec::as_slice).concat();
            size += turn.len();
            if size >= self.window {
                break;
            }
            turns.push(turn);
        }
        turns.reverse();
        let question = message("user", question);
        let opening = [vec![start], tokenizer.encode("assistant")].concat();
        let parts = [&newline, &question, &newline, &opening, &newline];
        [system, turns.concat(), parts.map(Vec::as_slice).concat()].concat()
    }

    /// Token ids that end an answer.
    pub fn stops(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self.format {
            ChatFormat::ChatMl => Self::marks(tokenizer).to_vec(),
            ChatFormat::Raw => vec![tokenizer.end_of_text()],
        }
    }

    /// `<|im_start|>` and `<|im_end|>`.
    fn marks(tokenizer: &Tokenizer) -> [u32; 2] {
        ["<|im_start|>", "<|im_end|>"].map(|name| {
            let ids = tokenizer.encode_with_special(name);
            assert_eq!(ids.len(), 1, "{name} is one token of every Qwen vocabulary");
            ids[0]
        })
    }
}
