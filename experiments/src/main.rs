//! `longspan`: runs context-scaling experiments on RoPE language models.
// Help texts name TOML tables in brackets, which are no links.
#![allow(rustdoc::broken_intra_doc_links)]

mod cells;
mod chat;
mod config;
mod device;
mod floor;
mod generate;
mod list;
mod log;
mod memory;
mod needle;
mod open;
mod plan;
mod plot;
mod profile;
mod protocol;
mod published;
mod random;
mod records;
mod report;
mod run;
mod score;
mod tokenize;
mod train;
#[cfg(feature = "train-tokenizer")]
mod train_tokenizer;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Parser, Subcommand};
use peak_alloc::PeakAlloc;

/// Counts what is allocated, for the peak in each record.
#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

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
    Run {
        /// TOML file with [model], [data], [[method]], and [perplexity] or [needle] or both
        config: PathBuf,
        /// Override a key of the config: a dotted path, numbers for the entries of a list
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Run folder [default: runs/NAME-OF-THE-CONFIG]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Refuse what would need more, as "16GiB" [default: what is free; on a GPU, none]
        #[arg(long, value_name = "SIZE")]
        memory_limit: Option<ByteSize>,
        /// Where to compute: cpu, cuda, wgpu, metal or rocm, with :1 and so on for another one than the
        /// first; see `longspan devices`
        #[arg(long, default_value = "cpu")]
        device: device::DeviceName,
    },
    /// List the passes of a config with their estimated time and memory, and run none
    #[command(after_help = "\
Examples:
  longspan plan experiments/configs/quickstart.toml
  longspan plan my.toml --memory-limit 16GiB --set perplexity.lengths=[2048,32768]")]
    Plan {
        /// TOML file, as for run
        config: PathBuf,
        /// Override a key of the config: a dotted path, numbers for the entries of a list
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Mark what would need more, as "16GiB" [default: what is free]
        #[arg(long, value_name = "SIZE")]
        memory_limit: Option<ByteSize>,
    },
    /// Score given tokens or text: the loss of every token under every method
    #[command(after_help = "\
Writes one JSON object a line: {\"method\": \"...\", \"doc\": 0, \"tokens\": n, \"nll\": [n-1 numbers]}, in nats.

Examples:
  longspan score --model checkpoints/Qwen-7B --methods methods.toml --tokens ids.jsonl --out nll.jsonl
  longspan score --model checkpoints/Qwen-7B --methods methods.toml --method plain --text paper.txt --out nll.jsonl")]
    Score(score::Args),
    /// Go on from a prompt, with keys and values kept
    #[command(after_help = "\
Tokens are chosen as generation_config.json in the model's folder says, where options do not say otherwise;
without it, the most probable one.

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
    /// Measure speed and memory, as the tables of Qwen's model cards give them
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
    #[command(after_help = "Examples:\n  longspan list methods\n  longspan list tasks")]
    List {
        /// What to list
        what: list::What,
    },
    /// List the devices that this build can use: the names for --device
    Devices,
    /// Write tables and figures again from the records of a run folder
    #[command(after_help = "Example:\n  longspan report runs/quickstart")]
    Report {
        /// Run folder
        dir: PathBuf,
    },
    /// Write a checkpoint of any shape with random weights, for measuring speed and memory
    #[command(after_help = "\
Examples:
  longspan random-checkpoint /tmp/qwen-1.8b --shape qwen-1.8b --dtype bf16
  longspan random-checkpoint /tmp/qwen-7b-int4 --shape qwen-7b --quant int4
  longspan random-checkpoint /tmp/wide --shape micro --vocab-size 151936 --tokenizer qwen.tiktoken")]
    RandomCheckpoint(random::Args),
    /// Train a model from scratch
    #[command(after_help = "\
The folder gets config.toml, train.jsonl, loss.svg and loss.png, and model/: a checkpoint to run.
Running again continues from the last saved state, step for step as if never stopped.

Examples:
  longspan train experiments/configs/tiny.toml
  longspan train my.toml --out runs/train/first --set schedule.minutes=20")]
    Train {
        /// TOML file with [model], [schedule], [[source]] and [[phase]]
        config: PathBuf,
        /// Override a key of the config: a dotted path, numbers for the entries of a list
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Folder [default: runs/train/NAME-OF-THE-CONFIG]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Learn a byte-pair vocabulary with Qwen's split pattern
    #[cfg(feature = "train-tokenizer")]
    #[command(after_help = "\
Example:
  longspan train-tokenizer qwen.tiktoken --size 1840 --text arxiv/train.jsonl builtin:articles")]
    TrainTokenizer(train_tokenizer::Args),
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run {
            config,
            set,
            out,
            device,
            memory_limit,
        } => run::run(&config, &set, out, device, memory_limit),
        Command::Plan {
            config,
            set,
            memory_limit,
        } => plan::plan(&config, &set, memory_limit),
        Command::Devices => device::list(),
        Command::Score(args) => score::score(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::Chat(args) => chat::chat(&args),
        Command::Profile(args) => profile::profile(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::List { what } => list::list(what),
        Command::Report { dir } => report::report(&dir),
        Command::RandomCheckpoint(args) => random::random_checkpoint(&args),
        Command::Train { config, set, out } => train::train(&config, &set, out),
        #[cfg(feature = "train-tokenizer")]
        Command::TrainTokenizer(args) => train_tokenizer::train_tokenizer(&args),
    }
}

/// Lets the allocator keep what is freed: a pass frees and takes the same buffers again and again, and glibc would give
/// them back to the system each time, whose fresh pages took a quarter of the time of a small model.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no other thread runs yet; a value that glibc does not take changes nothing.
    unsafe {
        // The largest that glibc takes; what is larger is still given back.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

fn main() -> ExitCode {
    keep_freed_memory();
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Who read the results went away, as `head` does: no mistake of the user's.
        Err(error) if error.chain().any(is_closed_pipe) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// A line on standard error; when nobody reads it, the work goes on.
pub fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Results on standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .context("standard output")
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
