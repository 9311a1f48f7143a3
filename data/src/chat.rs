//! What a chat model of the Qwen family is given: the prompt of a turn, as Qwen's code builds it.

use crate::Tokenizer;

/// How turns become a prompt (`chat_format` in `generation_config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// `<|im_start|>role\ntext<|im_end|>` for each message: chat models.
    ChatMl,
    /// The question alone, without system prompt and history: base models.
    Raw,
}

impl std::str::FromStr for ChatFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "chatml" => Ok(ChatFormat::ChatMl),
            "raw" => Ok(ChatFormat::Raw),
            _ => Err("the formats are chatml and raw".to_owned()),
        }
    }
}

/// A conversation so far.
#[derive(Clone, Debug)]
pub struct Chat {
    /// How it becomes a prompt.
    pub format: ChatFormat,
    /// The system prompt.
    pub system: String,
    /// Questions and answers, oldest first.
    pub history: Vec<(String, String)>,
    /// Tokens that system prompt and history may have together; older turns are left out (`max_window_size`).
    pub window: usize,
}

impl Chat {
    /// Token ids of the prompt for a question (`make_context` in QwenLM's `qwen_generation_utils.py`): special tokens
    /// only where the format puts them, so that their names in a message are text. Of the history the last turns
    /// are kept, as many as fit.
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

    /// Tokens that end an answer.
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
