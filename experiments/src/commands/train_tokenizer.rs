//! `longspan train-tokenizer`: a byte-pair vocabulary with Qwen's split pattern.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longspan_data::{Corpus, SPLIT, Tokenizer, training_articles};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl};

use longspan::folder::write_whole;

/// Options of `train-tokenizer`.
#[derive(clap::Args)]
pub struct Args {
    /// File to write, such as qwen.tiktoken
    out: PathBuf,
    /// Texts to learn from: files, folders, globs, or builtin:articles
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    text: Vec<String>,
    /// Tokens of the vocabulary; the 208 special ones come on top
    #[arg(long, value_parser = clap::value_parser!(u32).range(256..=1 << 24))]
    size: u32,
    /// Bytes to read of each of the texts, at most
    #[arg(long, default_value_t = 1 << 25, value_name = "BYTES")]
    bytes: usize,
    /// JSON field or Parquet column that holds the text
    #[arg(long, default_value = "text")]
    text_field: String,
}

/// Learns and writes the vocabulary.
pub fn train_tokenizer(args: Args) -> Result<()> {
    ensure!(
        !args.out.exists(),
        "{}: exists already; give another file",
        args.out.display()
    );
    let folder = args
        .out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(|folder| folder.is_dir()),
        "{}: its folder does not exist; make it first",
        args.out.display()
    );
    let mut documents = Vec::new();
    for path in &args.text {
        let before = documents.len();
        read(path, &args, &mut documents)?;
        ensure!(documents.len() > before, "{path}: no text");
    }
    let ranks = ranks(&learn(documents, args.size as usize)?)?;
    ensure!(
        ranks.len() == args.size as usize,
        "the texts give only {} tokens of {}; give more text or a smaller --size",
        ranks.len(),
        args.size
    );
    write_whole(&args.out, vocabulary(&ranks).as_bytes())?;
    let tokenizer = Tokenizer::from_file(&args.out)?;
    log::info!(
        "wrote {}: {} tokens, {} with the special ones",
        args.out.display(),
        ranks.len(),
        tokenizer.vocab_size()
    );
    Ok(())
}

/// Reads whole documents up to the limit. Of the built-in articles only those for training are
/// read; the others are held out.
fn read(path: &str, args: &Args, documents: &mut Vec<String>) -> Result<()> {
    let mut left = args.bytes;
    let mut take = |text: String| {
        let room = left > 0;
        left = left.saturating_sub(text.len());
        if room {
            documents.push(text);
        }
        room
    };
    if path == "builtin:articles" {
        let mut articles = training_articles(0);
        while articles.next().is_some_and(|article| take(article.text)) {}
        return Ok(());
    }
    for document in Corpus::open(path, &args.text_field)?.documents() {
        if !take(document?.text) {
            break;
        }
    }
    Ok(())
}

/// The file of a vocabulary: a line per token, its bytes in base64 and its rank.
fn vocabulary(ranks: &[Vec<u8>]) -> String {
    let lines = ranks.iter().enumerate();
    lines
        .map(|(rank, token)| format!("{} {rank}\n", STANDARD.encode(token)))
        .collect()
}

type Learned = TokenizerImpl<BPE, NFC, Sequence, ByteLevel, ByteLevel>;

/// Learns merges within the pieces that Qwen's pattern cuts.
fn learn(documents: Vec<String>, size: usize) -> Result<Learned> {
    let failed = |error: tokenizers::Error| anyhow::anyhow!("training the vocabulary: {error}");
    let pattern = SplitPattern::Regex(SPLIT.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes))
        .build()
        .map_err(failed)?;
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer
        .train(&mut trainer, documents.into_iter())
        .map_err(failed)?;
    Ok(tokenizer)
}

/// The tokens' bytes by rank: all single bytes, then merges in the order in which they were
/// learned.
fn ranks(tokenizer: &Learned) -> Result<Vec<Vec<u8>>> {
    let mut ranks: Vec<(u32, String)> = (tokenizer.get_vocab(false).into_iter())
        .map(|(token, id)| (id, token))
        .collect();
    ranks.sort();
    let byte_of = byte_letters();
    ranks
        .into_iter()
        .map(|(_, token)| {
            token
                .chars()
                .map(|letter| {
                    let found = byte_of.iter().position(|&known| known == letter);
                    let byte =
                        found.with_context(|| format!("letter {letter:?} stands for no byte"))?;
                    Ok(byte as u8)
                })
                .collect()
        })
        .collect()
}

/// The letter that stands for each byte in a byte-level vocabulary (GPT-2): itself where it is
/// printable, else the next unused one from U+0100 on.
fn byte_letters() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("a letter of the Latin blocks")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_the_alphabet() {
        let letters = byte_letters();
        let alphabet = ByteLevel::alphabet();
        assert!(letters.iter().all(|letter| alphabet.contains(letter)));
        assert_eq!(letters[usize::from(b' ')], 'Ġ');
    }

    #[test]
    fn learned_ranks_are_used_as_learned() {
        let text = "the theorem \\alpha 2024 and the theory ".repeat(50);
        let ranks = ranks(&learn(vec![text], 270).unwrap()).unwrap();
        assert_eq!(ranks.len(), 270);
        let single = ranks[..256].iter().all(|token| token.len() == 1);
        assert!(single);
        assert!(ranks.contains(&b" the".to_vec()));
        // Digits are pieces of their own.
        let digits = |token: &Vec<u8>| token.iter().filter(|b| b.is_ascii_digit()).count();
        assert!(ranks.iter().all(|token| digits(token) <= 1));
    }

    /// Our tokenizer merges by the rank of the result, the trainer by the merge it learned: the
    /// same ids.
    #[test]
    fn the_tokenizer_encodes_as_the_trainer_meant() {
        let texts: Vec<String> = training_articles(1).take(2).map(|a| a.text).collect();
        let learned = learn(vec![texts[0].clone()], 800).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qwen.tiktoken");
        std::fs::write(&path, vocabulary(&ranks(&learned).unwrap())).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        assert_eq!(tokenizer.ranks(), 800);
        let latex = "\\begin{equation}\\label{eq:2.1}\n  \\sum_{i=1}^{n} x_i^{2}  \\leq \\|f\\|_{L^p(\\Omega)},\r\n\
                     \\end{equation}\n\n% Poincar\u{e9}'s lemma, e\u{301}tale; it'll don't 2024 \u{6570}\u{5b66} \u{1f600}\t\tend  ";
        for text in [texts[1].as_str(), latex] {
            let meant = learned.encode(text, false).unwrap();
            let ids = tokenizer.encode(text);
            assert!(ids.len() < text.len());
            assert!(ids == meant.get_ids(), "{:?}", &text[..60]);
            let normal = text.replace("e\u{301}", "\u{e9}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), normal);
        }
    }
}
