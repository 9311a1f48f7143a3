//! Qwen's byte-pair tokenizer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tiktoken_rs::CoreBPE;
use unicode_normalization::UnicodeNormalization;

use crate::error::DataError;

/// Qwen's split pattern. Text is first cut into these pieces; byte pairs merge only within a piece.
pub const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Blanks of at least this many bytes are encoded without the split pattern, see [`find_blank`]:
/// the regex engine keeps one backtracking entry per character for `\s+(?!\S)` and fails at a
/// million.
const LONG_BLANK: usize = 10_000;

/// Qwen's byte-pair tokenizer over any `.tiktoken` vocabulary.
///
/// Text is normalised to NFC, cut by [`SPLIT`], and merged within each piece. The 208 special
/// tokens `<|endoftext|>`, `<|im_start|>`, `<|im_end|>` and `<|extra_0|>` to `<|extra_204|>` have
/// the ids after the last rank.
pub struct Tokenizer {
    pieces: CoreBPE,
    /// Encodes a blank as one piece; has only the tokens that can occur in one.
    blanks: CoreBPE,
    special: Vec<String>,
    ranks: usize,
    digest: String,
}

impl Tokenizer {
    /// Reads a `.tiktoken` vocabulary: on each line the bytes of a token in base64 and its rank, in
    /// any order.
    ///
    /// # Errors
    /// A file that cannot be read, a malformed line, a repeated token, ranks with a gap, or a byte
    /// that has no token of its own.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let bytes = fs::read(path).map_err(|reason| DataError::Io {
            path: path.to_owned(),
            reason,
        })?;
        Self::from_bytes(path, &bytes)
    }

    /// [`Tokenizer::from_file`] on the content of a file; `path` is its name in errors.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_file`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        let tokens = parse(path, bytes)?;
        Ok(Self::new(tokens, blake3::hash(bytes)))
    }

    /// The vocabulary of `builtin:random`: each byte is a token with the byte as its rank, and
    /// nothing merges.
    pub fn bytes() -> Self {
        let tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        let file: String = tokens
            .iter()
            .enumerate()
            .map(|(rank, token)| format!("{} {rank}\n", STANDARD.encode(token)))
            .collect();
        Self::new(tokens, blake3::hash(file.as_bytes()))
    }

    fn new(tokens: Vec<Vec<u8>>, digest: blake3::Hash) -> Self {
        let ranks = tokens.len();
        let special: Vec<String> = ["endoftext", "im_start", "im_end"]
            .into_iter()
            .map(|name| format!("<|{name}|>"))
            .chain((0..205).map(|i| format!("<|extra_{i}|>")))
            .collect();

        let mut in_blank = [false; 256];
        let blank_chars: String = ('\0'..=char::MAX).filter(|&c| is_blank(c)).collect();
        for byte in blank_chars.bytes() {
            in_blank[byte as usize] = true;
        }
        let blank_tokens = (0u32..)
            .zip(&tokens)
            .filter(|(_, token)| token.iter().all(|&byte| in_blank[byte as usize]))
            .map(|(rank, token)| (token.clone(), rank))
            .collect();
        let blanks = CoreBPE::new(blank_tokens, Default::default(), r"\s+");
        let special_ids = (ranks as u32..)
            .zip(&special)
            .map(|(id, token)| (token.clone(), id))
            .collect();
        let pieces = CoreBPE::new(tokens.into_iter().zip(0u32..).collect(), special_ids, SPLIT);

        Self {
            pieces: pieces.expect("the split pattern is valid"),
            blanks: blanks.expect("the blank pattern is valid"),
            special,
            ranks,
            digest: digest.to_hex().to_string(),
        }
    }

    /// Encodes a text. The name of a special token is ordinary text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encode_plain(&normalised(text), LONG_BLANK, &mut ids);
        ids
    }

    /// Encodes a text in which the name of a special token stands for that token.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        let text = normalised(text);
        let mut ids = Vec::new();
        let mut done = 0;
        for (at, _) in text.match_indices("<|") {
            let Some(i) = (self.special.iter()).position(|name| text[at..].starts_with(name))
            else {
                continue;
            };
            self.encode_plain(&text[done..at], LONG_BLANK, &mut ids);
            ids.push((self.ranks + i) as u32);
            done = at + self.special[i].len();
        }
        self.encode_plain(&text[done..], LONG_BLANK, &mut ids);
        ids
    }

    /// Decodes ids to text. Bytes that are not UTF-8, such as half a character, become U+FFFD.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned())
    }

    /// Decodes ids to bytes: a token may have only part of a character.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>, DataError> {
        (self.pieces.decode_bytes(ids)).map_err(|error| DataError::UnknownToken {
            id: error.token,
            size: self.vocab_size(),
        })
    }

    /// The number of bytes of each token.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn byte_lengths(&self, ids: &[u32]) -> Result<Vec<usize>, DataError> {
        let length = |&id| Ok(self.decode_bytes(&[id])?.len());
        ids.iter().map(length).collect()
    }

    /// The number of ordinary tokens. Special tokens have the ids after them.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The number of tokens, including special ones.
    pub fn vocab_size(&self) -> usize {
        self.ranks + self.special.len()
    }

    /// The id of `<|endoftext|>`, which ends a document.
    pub fn end_of_text(&self) -> u32 {
        self.ranks as u32
    }

    /// True for the id of a special token.
    pub fn is_special(&self, id: u32) -> bool {
        (self.ranks..self.vocab_size()).contains(&(id as usize))
    }

    /// The BLAKE3 digest of the vocabulary file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Appends the ids of a normalised text; blanks of `long_blank` bytes or more bypass the split.
    fn encode_plain(&self, mut text: &str, long_blank: usize, ids: &mut Vec<u32>) {
        while let Some((start, end)) = find_blank(text, long_blank) {
            ids.extend(self.pieces.encode_ordinary(&text[..start]));
            ids.extend(self.blanks.encode_ordinary(&text[start..end]));
            text = &text[end..];
        }
        ids.extend(self.pieces.encode_ordinary(text));
    }
}

fn normalised(text: &str) -> String {
    text.nfc().collect()
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() && c != '\r' && c != '\n'
}

/// The first piece of at least `min` bytes that `\s+(?!\S)` matches, as a byte range.
///
/// Take a maximal run of blanks (white space without line ends). Before other text the piece is the
/// run without its last character; at the end of the text it is the whole run. Before a line end
/// there is no such piece, because `\s*[\r\n]+` takes the run. No other alternative of the pattern
/// reaches from other text into the run, and none looks back, so both sides of the piece can be
/// encoded separately.
fn find_blank(text: &str, min: usize) -> Option<(usize, usize)> {
    let mut start = 0;
    loop {
        let run = text[start..].find(|c| !is_blank(c));
        let run_end = run.map_or(text.len(), |length| start + length);
        let next = text[run_end..].chars().next();
        let end = match next {
            None => run_end,
            Some('\r' | '\n') => start,
            Some(_) => (text[start..run_end].char_indices().next_back())
                .map_or(start, |(last, _)| start + last),
        };
        if end - start >= min {
            return Some((start, end));
        }
        start = run_end + next?.len_utf8();
    }
}

/// Parses a `.tiktoken` file; returns the tokens by rank.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Vec<u8>>, DataError> {
    let file_error = |problem: String| DataError::Vocabulary {
        path: path.to_owned(),
        problem,
    };
    let line_error = |line: usize, problem: String| DataError::VocabularyLine {
        path: path.to_owned(),
        line,
        problem,
    };

    let mut line_of_token: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut by_rank: HashMap<usize, (usize, Vec<u8>)> = HashMap::new();
    for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let text = String::from_utf8_lossy(text);
        let mut fields = text.split_whitespace();
        let Some(token) = fields.next() else {
            continue;
        };
        let token = STANDARD.decode(token).map_err(|error| {
            line_error(
                line,
                format!("{:?} is not base64 ({error})", shortened(token)),
            )
        })?;
        let rank = fields
            .next()
            .ok_or_else(|| line_error(line, "the rank is missing".into()))?;
        if let Some(extra) = fields.next() {
            let extra = shortened(extra);
            return Err(line_error(line, format!("{extra:?} follows the rank")));
        }
        let rank: usize = rank
            .parse()
            .map_err(|_| line_error(line, format!("{:?} is not a rank number", shortened(rank))))?;
        match line_of_token.entry(token.clone()) {
            Entry::Occupied(first) => {
                let problem = format!("the token of line {} again", first.get());
                return Err(line_error(line, problem));
            }
            Entry::Vacant(entry) => entry.insert(line),
        };
        match by_rank.entry(rank) {
            Entry::Occupied(first) => {
                let problem = format!("rank {rank} of line {} again", first.get().0);
                return Err(line_error(line, problem));
            }
            Entry::Vacant(entry) => entry.insert((line, token)),
        };
    }

    if by_rank.is_empty() {
        return Err(file_error("the vocabulary is empty".into()));
    }
    let count = by_rank.len();
    let mut tokens = Vec::with_capacity(count);
    for rank in 0..count {
        let Some((_, token)) = by_rank.remove(&rank) else {
            let problem = format!(
                "rank {rank} is missing: the file's {count} tokens must have the ranks 0 to {}",
                count - 1
            );
            return Err(file_error(problem));
        };
        tokens.push(token);
    }
    if let Some(byte) = (0..=255u8).find(|&byte| !line_of_token.contains_key(&vec![byte])) {
        let problem = format!(
            "no token for the single byte 0x{byte:02x}: without all 256 of them some text cannot be encoded"
        );
        return Err(file_error(problem));
    }
    Ok(tokens)
}

/// The first 40 characters of a word: the file may be of any kind and its words of any length.
fn shortened(word: &str) -> String {
    match word.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small vocabulary with merges across all kinds of blanks.
    fn merging() -> Tokenizer {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for token in [
            "  ",
            "    ",
            " \t",
            "\t\t",
            "\n\n",
            " \n",
            "\u{a0}",
            " a",
            "ab",
            "  a",
            "\u{3000}",
            "\u{3000} ",
            ".\n",
        ] {
            tokens.push(token.into());
        }
        Tokenizer::new(tokens, blake3::hash(b""))
    }

    #[test]
    fn cutting_out_blanks_changes_no_id() {
        let tokenizer = merging();
        let alphabet = [
            " ", " ", "\t", "\n", "\r", "\u{a0}", "\u{3000}", "a", ".", "1", "'s",
        ];
        let mut state = 1u64;
        for case in 0..20_000 {
            let mut text = String::new();
            for _ in 0..case % 17 {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                text.push_str(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let mut whole = Vec::new();
            tokenizer.encode_plain(&text, usize::MAX, &mut whole);
            for min in 1..4 {
                let mut cut = Vec::new();
                tokenizer.encode_plain(&text, min, &mut cut);
                assert_eq!(cut, whole, "{text:?}, blanks of {min} bytes cut out");
            }
        }
    }

    #[test]
    fn blanks_end_before_the_last_character() {
        assert_eq!(find_blank("a   b", 2), Some((1, 3)));
        assert_eq!(find_blank("a  b", 2), None);
        assert_eq!(find_blank("a  ", 2), Some((1, 3)));
        assert_eq!(find_blank("a    \nb", 2), None);
        assert_eq!(find_blank("a\n   b", 2), Some((2, 4)));
        assert_eq!(find_blank("\u{3000}\u{3000}x", 3), Some((0, 3)));
        assert_eq!(find_blank("", 1), None);
    }
}
