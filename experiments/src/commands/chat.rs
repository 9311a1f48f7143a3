//! `longspan chat`.

use anyhow::{Context, Result, ensure};
use longspan_data::{Chat, ChatFormat};
use longspan_model::Decoder;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::args::{MethodArgs, ModelArgs};
use super::generate::GenerationArgs;
use super::{generate, print};

/// Least capacity of the first cache of a conversation, tokens.
const FIRST: usize = 2048;

/// Options of `chat`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// System prompt
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "You are a helpful assistant."
    )]
    system: String,
    /// Form of the prompts: chatml or raw [default: generation_config.json, or chatml]
    #[arg(long)]
    format: Option<ChatFormat>,
    /// Tokens that system prompt and history may have together [default: generation_config.json, or
    /// 6144]
    #[arg(long, value_name = "TOKENS")]
    max_window_size: Option<usize>,
}

/// Reads questions and writes answers, until `/exit` or the end of the input.
pub fn chat(args: Args) -> Result<()> {
    let generator = generate::open(&args.model, &args.method, &args.generation)?;
    let mut chat = Chat {
        format: (args.format.or(generator.defaults.format)).unwrap_or(ChatFormat::ChatMl),
        system: args.system.clone(),
        history: Vec::new(),
        window: args.max_window_size.unwrap_or(generator.defaults.window),
    };
    ensure!(
        chat.window > 0,
        "--max-window-size 0 leaves no room for a system prompt"
    );
    let mut ends = chat.stops(&generator.tokenizer);
    ends.extend(generator.defaults.ends(&generator.tokenizer));
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
                log::info!("{command} is not known; there are /reset and /exit");
                continue;
            }
            _ => {}
        }
        editor.add_history_entry(&line).context("the terminal")?;
        let prompt = chat.prompt(&generator.tokenizer, &line);
        let needed = prompt.len().saturating_add(generator.max_new_tokens);
        // The common start of the turns stays in the cache while there is room. Capacity doubles
        // each time it runs out, up to what a conversation can take.
        let (_, decoder) = match &mut decoder {
            Some(known) if known.0 >= needed => known,
            place => {
                let most = chat.window.saturating_add(generator.max_new_tokens);
                let capacity = needed.saturating_mul(2).max(FIRST).min(most).max(needed);
                // Frees the old cache before the new one is made.
                *place = None;
                place.insert((capacity, generator.decoder(capacity)?))
            }
        };
        let answer = generator.generate(decoder, &prompt, &ends, print)?;
        print("\n")?;
        chat.history.push((line, answer.text));
    }
}
