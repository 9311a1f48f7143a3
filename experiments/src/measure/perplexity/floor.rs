//! The row `floor (exact)`: the loss of the best possible reader of the same windows.
//!
//! The generator of the built-in articles knows the true negative log likelihood of each piece of
//! text, also given only the text from some byte on (`longspan_data::Article`). A window's floor is
//! the sum over the pieces that lie wholly in its scored tokens, given the text from its first
//! token on. Pieces that reach over an end of the scored tokens are left out, which lowers the
//! floor. Floors are averaged as the losses of the cells are.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longspan_data::{Article, BUILTIN_ARTICLES, Tokenizer, held_out_articles};
use serde::{Deserialize, Serialize};

use super::cells::Cell;
use crate::folder::write_whole;
use crate::protocols::{ProtocolName, TokenStream, Window, score};

/// Name of the row in tables.
pub const ROW: &str = "floor (exact)";

const FILE: &str = "floor.json";

/// The floor of the cells of a protocol and length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Protocol.
    pub protocol: ProtocolName,
    /// Tokens per window.
    pub length: usize,
    /// Mean negative log likelihood, nats per token.
    pub nll: f64,
    /// Windows.
    pub windows: usize,
    /// Tokens fed.
    pub fed: usize,
    /// Tokens scored.
    pub scored: usize,
}

impl Floor {
    /// `exp(nll)`.
    pub fn perplexity(&self) -> f64 {
        self.nll.exp()
    }
}

/// The floors of a run's cells; none where the text is not the built-in articles.
///
/// # Errors
/// A vocabulary that does not give the text back byte for byte.
pub(super) fn floors(
    data: &str,
    tokenizer: &Tokenizer,
    stream: &TokenStream,
    cells: &[Cell],
) -> Result<Vec<Floor>> {
    if data != BUILTIN_ARTICLES {
        return Ok(Vec::new());
    }
    let text = Text::new(tokenizer, stream)?;
    // Windows are the same under every method.
    let of_first_method = cells.iter().filter(|cell| cell.method == 0);
    let floor = |cell: &Cell| {
        let windows = cell.windows.iter();
        let nll: Vec<Vec<f32>> = windows
            .map(|window| text.losses(window, cell.length))
            .collect();
        let nll: Vec<&[f32]> = nll.iter().map(Vec::as_slice).collect();
        let mean = score(cell.protocol.average(), &cell.windows, &nll);
        Floor {
            protocol: cell.protocol,
            length: cell.length,
            nll: mean.nll,
            windows: cell.windows.len(),
            fed: cell.windows.len() * cell.length,
            scored: mean.scored,
        }
    };
    Ok(of_first_method.map(floor).collect())
}

/// The articles of a stream, with the places of tokens in their texts.
struct Text {
    documents: Vec<Document>,
}

struct Document {
    article: Article,
    /// Tokens in the stream.
    tokens: Range<usize>,
    /// Byte at which each token of the article begins, followed by the length of the text.
    bytes: Vec<usize>,
}

impl Text {
    fn new(tokenizer: &Tokenizer, stream: &TokenStream) -> Result<Self> {
        let mut articles = held_out_articles().enumerate();
        let mut documents = Vec::new();
        for (index, &number) in stream.document_number.iter().enumerate() {
            let (_, article) = articles
                .find(|article| article.0 == number)
                .context("the stream is not of the built-in articles")?;
            let tokens = stream.document(index);
            let mut bytes = vec![0];
            let mut end = 0;
            for length in tokenizer.byte_lengths(&stream.ids[tokens.clone()])? {
                end += length;
                bytes.push(end);
            }
            ensure!(
                end == article.text.len(),
                "article {}: its tokens hold {end} bytes, the text {}",
                number + 1,
                article.text.len()
            );
            documents.push(Document {
                article,
                tokens,
                bytes,
            });
        }
        Ok(Self { documents })
    }

    /// Losses of positions `1..length` of a window, nats: each piece's at the token in which it
    /// ends.
    fn losses(&self, window: &Window, length: usize) -> Vec<f32> {
        let mut losses = vec![0.0; length - 1];
        let scored = window.start + window.scored.start..window.start + window.scored.end;
        for document in &self.documents {
            let (tokens, bytes) = (&document.tokens, &document.bytes);
            let byte = |token: usize| bytes[token.clamp(tokens.start, tokens.end) - tokens.start];
            let (fed, scored) = (byte(window.start), byte(scored.start)..byte(scored.end));
            // Stops after the scored tokens; at once if they end before this document.
            let pieces = document.article.nll(fed);
            for (piece, nats) in pieces.take_while(|(piece, _)| piece.end <= scored.end) {
                if piece.start >= scored.start {
                    let token = tokens.start + bytes.partition_point(|&byte| byte < piece.end) - 1;
                    losses[token - window.start - 1] += nats as f32;
                }
            }
        }
        losses
    }
}

/// Writes the floors into a run folder; without any, removes those of an earlier run.
///
/// # Errors
/// The file cannot be written or removed.
pub fn write(dir: &Path, floors: &[Floor]) -> Result<()> {
    let path = dir.join(FILE);
    if floors.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        };
    }
    write_whole(&path, serde_json::to_string_pretty(floors)?.as_bytes())
}

/// The floors of a run folder; none where it has none.
///
/// # Errors
/// A damaged file.
pub fn read(dir: &Path) -> Result<Vec<Floor>> {
    let path = dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: damaged; run the config again, and it is written again",
                path.display()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// All bytes, and some longer tokens.
    fn tokenizer() -> Tokenizer {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes = (0..=255).map(|byte| vec![byte]);
        let merged = [
            "th", "er", "in", "le", " $", "de", "{s", "}$", "}_{", "def", ".\n", "\\re",
        ];
        let merged = merged.map(|token| token.as_bytes().to_vec());
        for (rank, token) in bytes.chain(merged).enumerate() {
            writeln!(file, "{} {rank}", STANDARD.encode(token)).unwrap();
        }
        Tokenizer::from_file(file.path()).unwrap()
    }

    /// The second and the fourth article.
    fn stream(tokenizer: &Tokenizer) -> TokenStream {
        let mut stream = TokenStream::default();
        for number in [1, 3] {
            let article = held_out_articles().nth(number).unwrap();
            stream.document_start.push(stream.ids.len());
            stream.document_number.push(number);
            stream.ids.extend(tokenizer.encode(&article.text));
        }
        stream
    }

    #[test]
    fn losses_of_a_window_are_those_of_its_pieces() {
        let tokenizer = tokenizer();
        let stream = stream(&tokenizer);
        let text = Text::new(&tokenizer, &stream).unwrap();
        let border = stream.document_start[1];
        let decode = |tokens: Range<usize>| tokenizer.decode(&stream.ids[tokens]).unwrap();
        for (start, scored) in [
            (0, 1..3000),
            (50_000, 1..3000),
            (50_001, 1500..3000),
            (50_003, 2900..2901),
            (border - 1500, 1..3000), // over the border
            (border - 1500, 1400..2500),
            (border - 10, 1000..3000),
            (border, 1..3000),
        ] {
            let (length, group) = (3000, 0);
            let window = Window {
                start,
                scored: scored.clone(),
                group,
            };
            let losses = text.losses(&window, length);
            assert_eq!(losses.len(), length - 1);
            let mut expected = 0.0;
            for (number, document) in [(1, 0..border), (3, border..stream.ids.len())] {
                let article = held_out_articles().nth(number).unwrap();
                let inside = |token: usize| token.clamp(document.start, document.end);
                // Bytes of the article before a token.
                let byte = |token: usize| decode(document.start..inside(token)).len();
                let from = byte(start);
                let (first, last) = (byte(start + scored.start), byte(start + scored.end));
                for piece in article.pieces() {
                    if first <= piece.range.start && piece.range.end <= last {
                        expected += piece.nll(from);
                    }
                }
            }
            let of_scored = &losses[scored.start - 1..scored.end - 1];
            let sum: f64 = of_scored.iter().map(|&x| f64::from(x)).sum();
            assert!(
                (sum - expected).abs() < 1e-3,
                "{window:?}: {sum}, not {expected}"
            );
            let all: f64 = losses.iter().map(|&x| f64::from(x)).sum();
            assert!(
                (all - sum).abs() < 1e-9,
                "{window:?}: losses outside the scored tokens"
            );
        }
    }

    /// The loss of choosing a sentence falls on the token that completes its start.
    #[test]
    fn a_loss_stands_where_its_piece_ends() {
        let tokenizer = tokenizer();
        let stream = stream(&tokenizer);
        let text = Text::new(&tokenizer, &stream).unwrap();
        let window = Window {
            start: 0,
            scored: 1..6000,
            group: 0,
        };
        let losses = text.losses(&window, 6000);
        let mut found = 0;
        for token in 1..6000 {
            let upto = tokenizer.decode(&stream.ids[..token + 1]).unwrap();
            if upto.ends_with("\nBy~\\ref{s:") {
                let nats = (113f64 / 45.0).ln();
                assert!((f64::from(losses[token - 1]) - nats).abs() < 1e-6);
                assert_eq!(losses[token - 2], 0.0);
                found += 1;
            }
        }
        assert!(found > 10);
    }
}
