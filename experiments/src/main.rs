//! `longspan`: runs context-scaling experiments on RoPE language models.
// Help texts name TOML tables in brackets, which are not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod commands;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use longspan::memory::PeakAlloc;

#[cfg(feature = "train-tokenizer")]
use commands::train_tokenizer;
use commands::{
    chat, devices, generate, list, plan, profile, random_checkpoint, report, run, score, tokenize,
    train,
};

/// Counts what is allocated, for the peak in each record.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What happens to a RoPE language model past its trained length, and which method helps.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  longspan run experiments/configs/quickstart.toml
  longspan run experiments/configs/needle.toml
  longspan run my.toml --set model.path=checkpoints/Qwen-7B --set perplexity.lengths=[2048,8192]
  longspan list methods
  longspan report runs/quickstart"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a config: perplexity and needles of every method at every length
    #[command(after_help = "\
The run folder gets config.toml, and
  from [perplexity]  records.jsonl, nll/, table.md, table.csv, ppl.svg and ppl.png, time.svg and time.png
  from [needle]      needle.jsonl, needle.md, needle.csv, needle.svg and needle.png
Running again continues: finished cells are not computed again.

Examples:
  longspan run experiments/configs/quickstart.toml
  longspan run my.toml --out runs/first --set perplexity.max_tokens=65536
  longspan run my.toml --set method.0.rope.factor=8.0 --set 'data.path=\"arxiv/*.jsonl.zst\"'")]
    Run(run::Args),
    /// List the passes of a config with their estimated time and memory, and run none
    #[command(after_help = "\
Examples:
  longspan plan experiments/configs/quickstart.toml
  longspan plan my.toml --memory-limit 16GiB --set perplexity.lengths=[2048,32768]")]
    Plan(plan::Args),
    /// Score given tokens or text: the loss of every token under every method
    #[command(after_help = "\
Writes one JSON object a line: {\"method\": \"...\", \"doc\": 0, \"tokens\": n, \"nll\": [n-1 numbers]}, in nats.

Examples:
  longspan score --model checkpoints/Qwen-7B --methods methods.toml --tokens ids.jsonl --out nll.jsonl
  longspan score --model checkpoints/Qwen-7B --methods methods.toml --method plain --text paper.txt --out nll.jsonl")]
    Score(score::Args),
    /// Continue a prompt, with a cache of keys and values
    #[command(after_help = "\
Options that are left out come from generation_config.json in the model's folder; without it, generation is
greedy.

Examples:
  longspan generate --model builtin:tiny --max-new-tokens 100 '\\documentclass{article}'
  longspan generate --model checkpoints/Qwen-7B --file paper.tex --set rope.kind=dynamic_ntk --set logn=true \\
      --temperature 0.8 --top-p 0.9 --seed 1")]
    Generate(generate::Args),
    /// Talk with a chat model
    #[command(after_help = "\
/reset forgets the conversation, /exit or the end of the input ends it.

Examples:
  longspan chat --model checkpoints/Qwen-7B-Chat
  longspan chat --model checkpoints/Qwen-7B-Chat --system 'Answer in one line.' --set rope.kind=dynamic_ntk")]
    Chat(chat::Args),
    /// Measure speed and memory, as the tables of Qwen's model cards
    #[command(after_help = "\
Examples:
  longspan profile --model checkpoints/Qwen-1_8B
  longspan profile --shape qwen-1.8b --quant bf16 --tokens 64,256")]
    Profile(profile::Args),
    /// Text to token ids, and back
    #[command(after_help = "\
Examples:
  longspan tokenize --tokenizer checkpoints/Qwen-7B 'hello world'
  longspan tokenize --tokenizer qwen.tiktoken --file paper.txt > ids.jsonl
  longspan tokenize --tokenizer qwen.tiktoken --decode '[14990, 1879]'")]
    Tokenize(tokenize::Args),
    /// List what this build offers
    #[command(after_help = "Examples:\n  longspan list\n  longspan list methods")]
    List(list::Args),
    /// List the devices that this build can use: the names for --device
    Devices,
    /// Write tables and figures again from the records of a run folder
    #[command(after_help = "Example:\n  longspan report runs/quickstart")]
    Report(report::Args),
    /// Write a checkpoint of any shape with random weights, for measuring speed and memory
    #[command(after_help = "\
Examples:
  longspan random-checkpoint /tmp/qwen-1.8b --shape qwen-1.8b --dtype bf16
  longspan random-checkpoint /tmp/qwen-7b-int4 --shape qwen-7b --quant int4
  longspan random-checkpoint /tmp/wide --shape micro --vocab-size 151936 --tokenizer qwen.tiktoken")]
    RandomCheckpoint(random_checkpoint::Args),
    /// Train a model from scratch
    #[command(after_help = "\
The folder gets config.toml, train.jsonl, loss.svg and loss.png, and model/: a checkpoint to run.
Running again continues from the last saved state, step for step as if never stopped.

Examples:
  longspan train experiments/configs/tiny.toml
  longspan train my.toml --out runs/train/first --set schedule.minutes=20")]
    Train(train::Args),
    /// Learn a byte-pair vocabulary with Qwen's split pattern
    #[cfg(feature = "train-tokenizer")]
    #[command(after_help = "\
Example:
  longspan train-tokenizer qwen.tiktoken --size 1840 --text arxiv/train.jsonl builtin:articles")]
    TrainTokenizer(train_tokenizer::Args),
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Plan(args) => plan::plan(args),
        Command::Devices => devices::devices(),
        Command::Score(args) => score::score(args),
        Command::Generate(args) => generate::generate(args),
        Command::Chat(args) => chat::chat(args),
        Command::Profile(args) => profile::profile(args),
        Command::Tokenize(args) => tokenize::tokenize(args),
        Command::List(args) => list::list(args),
        Command::Report(args) => report::report(args),
        Command::RandomCheckpoint(args) => random_checkpoint::random_checkpoint(args),
        Command::Train(args) => train::train(args),
        #[cfg(feature = "train-tokenizer")]
        Command::TrainTokenizer(args) => train_tokenizer::train_tokenizer(args),
    }
}

/// Lets the allocator keep freed memory: a pass frees and takes the same buffers again and again,
/// and glibc would return them to the system each time; the fresh pages took a quarter of the time
/// of a small model.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no other thread runs yet; glibc ignores a value that it does not take.
    unsafe {
        // The largest threshold that glibc takes; larger blocks are still returned.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

fn main() -> ExitCode {
    keep_freed_memory();
    if log::set_logger(&Terminal).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe (`head` does); not an error.
        Err(error) if error.chain().any(is_closed_pipe) => ExitCode::SUCCESS,
        Err(error) => {
            match commands::remedy::remedy(&error) {
                Some(remedy) => tell(format_args!("error: {error:#}; {remedy}")),
                None => tell(format_args!("error: {error:#}")),
            }
            ExitCode::from(2)
        }
    }
}

/// Messages of the program and its library, on standard error.
struct Terminal;

impl log::Log for Terminal {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        // GPU back ends log too.
        metadata.target().starts_with("longspan") && metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            if record.level() <= log::Level::Warn {
                tell(format_args!("warning: {}", record.args()));
            } else {
                tell(record.args());
            }
        }
    }

    fn flush(&self) {}
}

/// Writes a line to standard error; a closed pipe is not an error.
fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
