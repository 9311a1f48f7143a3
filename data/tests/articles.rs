//! The built-in articles: the same on every machine, and with the likelihoods that a parser of the
//! text computes independently.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use longspan_data::{Article, Corpus, Document, held_out_articles, training_articles};

#[test]
fn they_are_the_same_everywhere() {
    let corpus = Corpus::open("builtin:articles", "text").unwrap();
    assert!(corpus.files().is_empty());
    let documents: Vec<Document> = corpus.documents().map(Result::unwrap).collect();
    assert_eq!(documents.len(), 64);
    assert_eq!(documents[0].source, "article 1");
    let start = r"\documentclass{article}
\begin{document}
\begin{lemma}\label{s:001}
";
    assert!(
        documents[0].text.starts_with(start),
        "{}",
        &documents[0].text[..200]
    );
    assert_eq!(
        blake3::hash(documents[0].text.as_bytes()).to_hex().as_str(),
        "c38458c94a81ef4b8989414b965fcd67c501194c184d92eebdde65b010d19dce"
    );
    for (i, (document, article)) in documents.iter().zip(held_out_articles()).enumerate() {
        assert_eq!(document.text, article.text);
        assert!((140_000..260_000).contains(&article.text.len()));
        assert!(article.text.is_ascii());
        assert!(
            documents[..i]
                .iter()
                .all(|other| other.text != document.text)
        );
    }
}

#[test]
fn training_never_sees_them() {
    let held_out: HashSet<String> = held_out_articles().map(|article| article.text).collect();
    let stream = |seed| training_articles(seed).take(20).map(|article| article.text);
    let both: HashSet<String> = stream(0).chain(stream(1)).collect();
    assert_eq!(both.len(), 40, "two articles of the streams are equal");
    assert!(both.is_disjoint(&held_out));
    assert!(stream(0).eq(stream(0)));
}

/// Sentences and weights, as documented. Slots: `@` number of a new notion, `#` of an old one,
/// `N`ame, `S`ymbol, `Q`uantity, `V`alue, `*` topic.
const SENTENCES: [(u64, &str); 12] = [
    (
        3,
        "\\begin{theorem}\\label{s:@}\nThe N $S$ has Q $V$.\n\\end{theorem}\n",
    ),
    (
        3,
        "\\begin{lemma}\\label{s:@}\nThe N $S$ has Q $V$.\n\\end{lemma}\n",
    ),
    (4, "\\defn\\label{s:@} The N $S$ has Q $V$.\n"),
    (3, "\n\\section{*}\n"),
    (45, "By~\\ref{s:#}, the N $S$ has Q $V$.\n"),
    (15, "\\proof From~\\ref{s:#}, the N $S$ has Q $V$. \\qed\n"),
    (10, "Following~\\cite{s:#}, the N $S$ has Q $V$.\n"),
    (10, "As in~\\ref{s:#}, the N has Q $V$.\n"),
    (8, "Due to~\\ref{s:#}, the N $S$ is compact.\n"),
    (4, "Hence~\\ref{s:#} is sharp: $S$ has Q $V$.\n"),
    (4, "\\[ \\tag{s:#} |S| \\le V. \\]\n"),
    (
        4,
        "It remains to bound~\\ref{s:#}, that is, the Q of the N.\n",
    ),
];
const HEAD: &str = "\\documentclass{article}\n\\begin{document}\n";

/// Parses an article from the start of a sentence, given the number of notions before.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    notions: usize,
    number: usize,
    /// Attributes seen, by notion and kind.
    seen: HashMap<(usize, char), &'a str>,
    pieces: Vec<(Range<usize>, f64)>,
    /// The start of each sentence and the number of notions before it.
    sentences: Vec<(usize, usize)>,
    /// Observed and expected counts of each sentence and each power of two of lags.
    chosen: HashMap<(char, usize), (f64, f64)>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, at: usize, notions: usize) -> Self {
        Self {
            text,
            at,
            notions,
            number: 0,
            seen: HashMap::new(),
            pieces: Vec::new(),
            sentences: Vec::new(),
            chosen: HashMap::new(),
        }
    }

    fn whole(text: &'a str) -> Self {
        let mut reader = Self::new(text, HEAD.len(), 0);
        assert!(text.starts_with(HEAD));
        reader.read(usize::MAX);
        assert_eq!(&text[reader.at..], "\\end{document}\n");
        reader
    }

    /// Reads this many sentences, or up to the end.
    fn read(&mut self, sentences: usize) {
        for _ in 0..sentences {
            if self.notions == 225 {
                return;
            }
            self.sentences.push((self.at, self.notions));
            self.sentence();
        }
    }

    fn sentence(&mut self) {
        let open = |pattern: &str| self.notions >= 10 || !pattern.contains('#');
        let possible: Vec<_> = (0..SENTENCES.len())
            .filter(|&i| open(SENTENCES[i].1))
            .collect();
        let total: u64 = possible.iter().map(|&i| SENTENCES[i].0).sum();
        let mut found = Vec::new();
        for i in possible {
            let (weight, pattern) = SENTENCES[i];
            let start = &pattern[..pattern.find(['@', '#', '*']).unwrap()];
            let counts = self.chosen.entry(('s', i)).or_default();
            counts.1 += weight as f64 / total as f64;
            if self.text[self.at..].starts_with(start) {
                counts.0 += 1.0;
                found.push((weight, start, &pattern[start.len()..]));
            }
        }
        let [(weight, start, rest)] = found[..] else {
            panic!("{} readings at byte {}", found.len(), self.at);
        };
        self.take(start.len(), (total as f64 / weight as f64).ln());
        for slot in rest.chars() {
            match slot {
                '@' => {
                    self.notions += 1;
                    self.number = self.notions;
                    let number = format!("{:03}", self.number);
                    assert!(self.text[self.at..].starts_with(&number));
                    self.at += 3;
                }
                '#' => self.reference(),
                'N' => {
                    let noun = self.length(self.at + 7, |c| c.is_ascii_lowercase());
                    self.attribute('N', 7 + noun, 32 * 32 * 16);
                }
                'S' => {
                    let length = self.length(self.at, |c| !"$|".contains(c));
                    self.attribute('S', length, 16 * 10 * 10);
                }
                'Q' => {
                    let length = self.length(self.at, |c| c.is_ascii_lowercase());
                    self.attribute('Q', length, 8);
                }
                'V' => self.attribute('V', 9, 900_000),
                '*' => {
                    let length = self.length(self.at, |c| c != '}');
                    self.take(length, 8f64.ln());
                }
                literal => {
                    assert!(self.text[self.at..].starts_with(literal));
                    self.at += 1;
                }
            }
        }
    }

    fn length(&self, from: usize, inside: impl Fn(char) -> bool) -> usize {
        self.text[from..].find(|c| !inside(c)).unwrap()
    }

    fn reference(&mut self) {
        self.number = self.text[self.at..self.at + 3].parse().unwrap();
        let weight = |lag: usize| 1_000_000_000 / (lag as u64 + 1).pow(2);
        let total: u64 = (1..self.notions).map(weight).sum();
        for lag in 1..self.notions {
            let bucket = lag.ilog2() as usize;
            self.chosen.entry(('l', bucket)).or_default().1 += weight(lag) as f64 / total as f64;
        }
        let lag = self.notions - self.number;
        self.chosen
            .entry(('l', lag.ilog2() as usize))
            .or_default()
            .0 += 1.0;
        self.take(3, (total as f64 / weight(lag) as f64).ln());
    }

    fn attribute(&mut self, kind: char, length: usize, space: u64) {
        let text = &self.text[self.at..self.at + length];
        let nats = match self.seen.insert((self.number, kind), text) {
            Some(copy) => {
                assert_eq!(copy, text, "{kind} of {} at byte {}", self.number, self.at);
                0.0
            }
            None => (space as f64).ln(),
        };
        self.take(length, nats);
    }

    fn take(&mut self, length: usize, nats: f64) {
        self.pieces.push((self.at..self.at + length, nats));
        self.at += length;
    }
}

fn assert_same(article: impl Iterator<Item = (Range<usize>, f64)>, read: &[(Range<usize>, f64)]) {
    let mut count = 0;
    for ((range, nats), expected) in article.zip(read) {
        assert_eq!(range, expected.0);
        assert!(
            (nats - expected.1).abs() < 1e-12,
            "{range:?}: {nats}, {expected:?}"
        );
        count += 1;
    }
    assert_eq!(count, read.len());
}

#[test]
fn the_text_alone_gives_the_choices_and_their_probabilities() {
    for article in held_out_articles().take(3) {
        let reader = Reader::whole(&article.text);
        assert_eq!(article.pieces().len(), reader.pieces.len());
        assert_same(article.nll(0), &reader.pieces);
    }
}

/// A reader that starts inside an article has seen no attribute before.
#[test]
fn a_reader_of_a_part_finds_the_truncated_loss() {
    let article = Article::write(3);
    let sentences = Reader::whole(&article.text).sentences;
    for &(from, notions) in sentences.iter().step_by(97) {
        let mut reader = Reader::new(&article.text, from, notions);
        reader.read(300);
        assert_same(article.nll(from), &reader.pieces);
    }
}

#[test]
fn words_fill_their_spaces() {
    let articles: Vec<Article> = held_out_articles().collect();
    let mut words: HashMap<&str, HashSet<&str>> = HashMap::new();
    for article in &articles {
        let reader = Reader::whole(&article.text);
        for (&(_, kind), &text) in &reader.seen {
            let mut add = |list, word| {
                words.entry(list).or_default().insert(word);
            };
            match kind {
                'N' => {
                    add("syllable 1", &text[..3]);
                    add("syllable 2", &text[3..6]);
                    add("noun", &text[6..]);
                }
                'S' => {
                    let (letter, subscript) = text.rsplit_once("_{").unwrap();
                    add("letter", letter);
                    add("subscript 1", &subscript[..1]);
                    add("subscript 2", &subscript[1..2]);
                }
                'Q' => add("quantity", text),
                _ => add("value", text),
            }
        }
    }
    for (list, size) in [
        ("syllable 1", 32),
        ("syllable 2", 32),
        ("noun", 16),
        ("letter", 16),
        ("subscript 1", 10),
        ("subscript 2", 10),
        ("quantity", 8),
    ] {
        assert_eq!(words[list].len(), size, "{list}");
    }
    let mut values = words["value"]
        .iter()
        .map(|value| value.replace("{,}", "").parse().unwrap());
    assert!(values.all(|value: usize| (100_000..1_000_000).contains(&value)));
    assert!(words["value"].len() > 14_000); // 14,400 draws of 900,000
}

#[test]
fn choices_are_as_frequent_as_stated() {
    let mut chosen: HashMap<(char, usize), (f64, f64)> = HashMap::new();
    for article in training_articles(7).take(20) {
        for (choice, (observed, expected)) in Reader::whole(&article.text).chosen {
            let sums = chosen.entry(choice).or_default();
            *sums = (sums.0 + observed, sums.1 + expected);
        }
    }
    assert_eq!(chosen.len(), SENTENCES.len() + 8);
    for (choice, (observed, expected)) in chosen {
        assert!(expected > 20.0, "{choice:?}: {expected}");
        let error = (observed - expected) / expected.sqrt();
        assert!(
            error.abs() < 4.5,
            "{choice:?}: {observed}, {expected} expected"
        );
    }
}

#[test]
fn what_is_cut_off_costs() {
    let article = Article::write(5);
    let half = article.text.len() / 2;
    let of_half = |from: usize| -> f64 {
        let pieces = article.nll(from).filter(|(range, _)| range.start >= half);
        pieces.map(|(_, nats)| nats).sum()
    };
    let totals = [0, half / 2, half - 10_000, half - 1000, half].map(of_half);
    assert!(
        totals.is_sorted() && totals[0] < 0.95 * totals[4],
        "{totals:?}"
    );
    let mut previous = 0.0;
    for from in (0..half).step_by(1009) {
        assert!(of_half(from) >= previous);
        previous = of_half(from);
    }
    // A piece costs most without context and least with all of it.
    for piece in article.pieces() {
        assert!(piece.nll(piece.range.start) >= piece.nll(0));
    }

    // A copy that the cut goes through is visible; one that ends at the cut is not.
    let text = |range: &Range<usize>| &article.text[range.clone()];
    let is_value = |text: &str| text.contains("{,}");
    let values: Vec<_> = (article.pieces().iter())
        .filter(|piece| is_value(text(&piece.range)))
        .take(1000)
        .collect();
    let mut copies = 0;
    for (i, value) in values.iter().enumerate() {
        let earlier = values[..i].iter();
        let Some(last) = earlier
            .rev()
            .find(|other| text(&other.range) == text(&value.range))
        else {
            continue;
        };
        assert_eq!(value.nll(last.range.end - 1), 0.0);
        assert!(value.nll(last.range.end) > 13.0);
        copies += 1;
    }
    assert!(copies > 500);
}

/// The floor falls with longer contexts, because much of an article repeats text from long before.
#[test]
fn a_long_memory_pays() {
    let articles: Vec<Article> = held_out_articles().take(8).collect();
    let floor = |context: usize| -> f64 {
        let of_article = |article: &Article| -> f64 {
            let pieces = article.pieces().iter();
            pieces
                .map(|piece| piece.nll(piece.range.start.saturating_sub(context)))
                .sum()
        };
        articles.iter().map(of_article).sum()
    };
    let floors = [512, 4096, 32_768].map(floor);
    for pair in floors.windows(2) {
        assert!(pair[1] < 0.87 * pair[0], "{floors:?}");
    }
    let mut bytes = [0, 0];
    for article in &articles {
        let copies = article.pieces().iter().filter(|piece| piece.nll(0) == 0.0);
        bytes[0] += copies.map(|piece| piece.range.len()).sum::<usize>();
        bytes[1] += article.text.len();
    }
    let share = bytes[0] as f64 / bytes[1] as f64;
    assert!((0.3..0.45).contains(&share), "{share}");
}
