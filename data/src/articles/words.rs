//! Sentences and words of the articles.

use std::ops::Range;

/// Sentences with their weights. Words in angle brackets are slots. Most sentences with `<ref>`
/// repeat a whole statement word for word.
pub const SENTENCES: [(u64, &str); 12] = [
    (
        3,
        "\\begin{theorem}\\label{s:<new>}\nThe <name> $<symbol>$ has <quantity> $<value>$.\n\\end{theorem}\n",
    ),
    (
        3,
        "\\begin{lemma}\\label{s:<new>}\nThe <name> $<symbol>$ has <quantity> $<value>$.\n\\end{lemma}\n",
    ),
    (
        4,
        "\\defn\\label{s:<new>} The <name> $<symbol>$ has <quantity> $<value>$.\n",
    ),
    (3, "\n\\section{<topic>}\n"),
    (
        45,
        "By~\\ref{s:<ref>}, the <name> $<symbol>$ has <quantity> $<value>$.\n",
    ),
    (
        15,
        "\\proof From~\\ref{s:<ref>}, the <name> $<symbol>$ has <quantity> $<value>$. \\qed\n",
    ),
    (
        10,
        "Following~\\cite{s:<ref>}, the <name> $<symbol>$ has <quantity> $<value>$.\n",
    ),
    (
        10,
        "As in~\\ref{s:<ref>}, the <name> has <quantity> $<value>$.\n",
    ),
    (
        8,
        "Due to~\\ref{s:<ref>}, the <name> $<symbol>$ is compact.\n",
    ),
    (
        4,
        "Hence~\\ref{s:<ref>} is sharp: $<symbol>$ has <quantity> $<value>$.\n",
    ),
    (4, "\\[ \\tag{s:<ref>} |<symbol>| \\le <value>. \\]\n"),
    (
        4,
        "It remains to bound~\\ref{s:<ref>}, that is, the <quantity> of the <name>.\n",
    ),
];

/// A name is two of these syllables and a noun.
pub const SYLLABLES: [&str; 32] = [
    "bal", "cor", "del", "fan", "gri", "hol", "jar", "kem", "lis", "mur", "nov", "pel", "qui",
    "ros", "sol", "tav", "ulm", "ver", "wen", "xan", "yor", "zim", "ast", "eck", "bru", "dag",
    "fer", "hux", "lom", "nim", "pra", "tes",
];
/// The last word of a name.
pub const NOUNS: [&str; 16] = [
    "lattice",
    "bundle",
    "filtration",
    "measure",
    "operator",
    "category",
    "kernel",
    "sheaf",
    "module",
    "graph",
    "flow",
    "norm",
    "cover",
    "functor",
    "metric",
    "complex",
];
/// A symbol is one of these letters with two subscripts.
pub const LETTERS: [&str; 16] = [
    "\\Lambda",
    "\\mathcal{F}",
    "\\mathcal{K}",
    "\\Omega",
    "\\mathfrak{g}",
    "\\Phi",
    "\\mathcal{M}",
    "\\Theta",
    "\\mathbb{E}",
    "\\Gamma",
    "\\mathcal{B}",
    "\\Psi",
    "\\mathfrak{h}",
    "\\Sigma",
    "\\mathbb{P}",
    "\\Xi",
];
/// Subscripts of a symbol.
pub const SUBSCRIPTS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
/// Names of the quantities that have values.
pub const QUANTITIES: [&str; 8] = [
    "depth", "rank", "index", "weight", "width", "height", "degree", "defect",
];
/// Values have six digits, in two groups: `$482{,}913$`.
pub const VALUES: Range<usize> = 100_000..1_000_000;
/// Section headings.
pub const TOPICS: [&str; 8] = [
    "Preliminaries",
    "Local structure",
    "Global estimates",
    "Duality",
    "The inductive step",
    "Examples",
    "Sharpness",
    "Further reductions",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that no word is a prefix of another.
    fn assert_prefix_free(words: &[&str]) {
        for (i, a) in words.iter().enumerate() {
            for b in &words[..i] {
                assert!(!a.starts_with(b) && !b.starts_with(a), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn there_is_one_reading() {
        let starts = SENTENCES.map(|(_, sentence)| sentence.split('<').next().unwrap());
        assert_prefix_free(&starts);
        assert!(SYLLABLES.iter().all(|syllable| syllable.len() == 3));
        assert!(SUBSCRIPTS.iter().all(|subscript| subscript.len() == 1));
        for words in [
            &SYLLABLES[..],
            &NOUNS,
            &LETTERS,
            &SUBSCRIPTS,
            &QUANTITIES,
            &TOPICS,
        ] {
            assert_prefix_free(words);
        }
    }

    #[test]
    fn statements_give_all_that_others_repeat() {
        for (_, sentence) in SENTENCES {
            let number = sentence.find("<new>").or(sentence.find("<ref>"));
            for slot in ["<name>", "<symbol>", "<quantity>", "<value>"] {
                let at = sentence.find(slot);
                assert!(at.is_none() || number < at, "{sentence:?}: whose {slot}?");
                assert!(
                    at.is_some() || !sentence.contains("<new>"),
                    "{sentence:?}: no {slot}"
                );
            }
        }
    }
}
