//! `longspan chat`: a conversation with a chat model.

use anyhow::{Context, Result, ensure};
use longspan_data::{Chat, ChatFormat};
use longspan_model::Decoder;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::generate::{Speaker, SpeakerArgs};

/// Tokens that the first cache of a conversation has room for, at least.
const FIRST: usize = 2048;

/// Options of `chat`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    speaker: SpeakerArgs,
    /// System prompt
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "You are a helpful assistant."
    )]
    system: String,
    /// How a conversation becomes a prompt: chatml or raw [default: generation_config.json, or chatml]
    #[arg(long)]
    format: Option<ChatFormat>,
    /// Tokens that system prompt and history may have together [default: generation_config.json, or 6144]
    #[arg(long, value_name = "TOKENS")]
    max_window_size: Option<usize>,
}

/// Reads questions and writes answers, until `/exit` or the end of the input.
pub fn chat(args: &Args) -> Result<()> {
    let speaker = Speaker::open(&args.speaker)?;
    let mut chat = Chat {
        format: (args.format.or(speaker.defaults.format)).unwrap_or(ChatFormat::ChatMl),
        system: args.system.clone(),
        history: Vec::new(),
        window: args.max_window_size.unwrap_or(speaker.defaults.window),
    };
    ensure!(
        chat.window > 0,
        "--max-window-size 0 leaves no room for a system prompt"
    );
    let mut ends = chat.stops(&speaker.tokenizer);
    ends.extend(speaker.defaults.ends(&speaker.tokenizer));
    let mut editor = DefaultEditor::new().context("the terminal")?;
    let mut decoder: Option<(usize, Decoder)> = None;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            // Control-C drops the line, as in a shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("the terminal"),
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/reset" => {
                chat.history.clear();
                continue;
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                crate::tell(format_args!(
                    "{command} is not known; there are /reset and /exit"
                ));
                continue;
            }
            _ => {}
        }
        editor.add_history_entry(&line).context("the terminal")?;
        let prompt = chat.prompt(&speaker.tokenizer, &line);
        let needed = prompt.len().saturating_add(speaker.max_new_tokens);
        // What the turns have in common stays read, as long as there is room: twice as much each time it runs out, up to
        // what a conversation can take.
        let (_, decoder) = match &mut decoder {
            Some(known) if known.0 >= needed => known,
            place => {
                let most = chat.window.saturating_add(speaker.max_new_tokens);
                let capacity = needed.saturating_mul(2).max(FIRST).min(most).max(needed);
                // The old one goes before there is a new one.
                *place = None;
                place.insert((capacity, speaker.decoder(capacity)?))
            }
        };
        let spoken = speaker.speak(decoder, &prompt, &ends, crate::print)?;
        crate::print("\n")?;
        chat.history.push((line, spoken.text));
    }
}
