//! `longspan tokenize`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use longspan_data::Tokenizer;

use super::print;

/// Options of `tokenize`.
#[derive(clap::Args)]
pub struct Args {
    /// Vocabulary file, or a model's folder
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: PathBuf,
    /// Read special tokens such as <|im_start|> in the text as such
    #[arg(long)]
    special: bool,
    /// Ids to text: the input is a JSON array of ids
    #[arg(long, conflicts_with = "special")]
    decode: bool,
    /// Read the input from a file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// The input [default: --file, or standard input]
    text: Option<String>,
}

/// Opens a vocabulary file or the one in a folder.
pub fn open(path: &Path) -> Result<Tokenizer> {
    if path.is_dir() {
        return longspan::open::tokenizer(&path.to_string_lossy(), None);
    }
    Ok(Tokenizer::from_file(path)?)
}

/// The text given, or that of a file, or that of standard input.
pub fn input(text: Option<&str>, file: Option<&Path>) -> Result<String> {
    match (text, file) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| file.display().to_string())
        }
        (None, None) => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.context("standard input")?;
            Ok(text)
        }
    }
}

/// Prints ids as a JSON array, or text.
pub fn tokenize(args: Args) -> Result<()> {
    let tokenizer = open(&args.tokenizer)?;
    let input = input(args.text.as_deref(), args.file.as_deref())?;
    if args.decode {
        let ids: Vec<u32> =
            serde_json::from_str(&input).context("--decode reads a JSON array of token ids")?;
        return print(&format!("{}\n", tokenizer.decode(&ids)?));
    }
    let ids = if args.special {
        tokenizer.encode_with_special(&input)
    } else {
        tokenizer.encode(&input)
    };
    print(&format!("{}\n", serde_json::to_string(&ids)?))
}
