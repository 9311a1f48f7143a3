//! Built-in text: generated articles that look like LaTeX mathematics.
//!
//! Every article invents notions, each with a name, a symbol and a number, proves results about them, and
//! comes back to both much later, so that what was read long ago helps to predict what comes. The
//! sentences mean nothing. Only integers and a fixed random generator are used: the text is the same on
//! every machine.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::Document;

const ARTICLES: u64 = 64;
/// An article ends with the first section that takes it past this many bytes.
const ARTICLE_BYTES: usize = 150_000;
const BLOCKS_PER_SECTION: usize = 12;

const SYLLABLES: [&str; 24] = [
    "ba", "cor", "del", "fan", "gri", "hol", "jar", "kem", "lis", "mur", "nov", "pel", "quin",
    "ros", "sol", "tav", "ul", "ver", "wen", "xan", "yor", "zim", "ast", "eck",
];
const NOUNS: [&str; 16] = [
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
const LETTERS: [&str; 12] = [
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
];
const QUANTITIES: [&str; 8] = [
    "depth", "rank", "index", "weight", "width", "height", "degree", "defect",
];
const PROPERTIES: [&str; 10] = [
    "closed under finite sums",
    "bounded from below",
    "invariant under translation",
    "determined by its restriction to the boundary",
    "stable under base change",
    "complete and separable",
    "compatible with the grading",
    "generated in degree one",
    "finite on every compact set",
    "independent of the choice of a basis",
];
const TOPICS: [&str; 10] = [
    "Preliminaries",
    "Local structure",
    "Global estimates",
    "A compactness argument",
    "Duality",
    "The inductive step",
    "Examples",
    "Comparison of invariants",
    "Sharpness",
    "Further reductions",
];
const METHODS: [&str; 6] = [
    "by induction on the number of generators",
    "by passing to a subsequence",
    "after replacing the cover by a finer one",
    "by comparing both sides term by term",
    "by the triangle inequality",
    "after averaging over the group",
];

/// All built-in articles, each generated when it is asked for.
pub(crate) fn documents() -> impl Iterator<Item = Document> + Send {
    (0..ARTICLES).map(|number| Document {
        source: format!("article {}", number + 1),
        text: Article::write(number),
    })
}

struct Notion {
    name: String,
    symbol: String,
    quantity: &'static str,
    value: u64,
    label: String,
}

struct Theorem {
    kind: &'static str,
    label: String,
    about: usize,
    property: &'static str,
}

struct Article {
    rng: Xoshiro256PlusPlus,
    text: String,
    notions: Vec<Notion>,
    theorems: Vec<Theorem>,
    /// Each equation's label and formula.
    equations: Vec<(String, String)>,
}

impl Article {
    fn write(seed: u64) -> String {
        let mut article = Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            text: String::new(),
            notions: Vec::new(),
            theorems: Vec::new(),
            equations: Vec::new(),
        };
        for section in 1.. {
            let topic = article.pick(&TOPICS);
            article.add(format!("\\section{{{topic}}}\\label{{sec:{section}}}"));
            for block in 0..BLOCKS_PER_SECTION {
                match article.below(8) {
                    _ if block == 0 => article.define(),
                    0 => article.define(),
                    1..=3 => article.prove(),
                    4 => article.calculate(),
                    _ => article.recall(),
                }
            }
            if article.text.len() > ARTICLE_BYTES {
                break;
            }
        }
        article.text
    }

    fn define(&mut self) {
        let name = loop {
            let name: String = (0..3).map(|_| self.pick(&SYLLABLES)).collect();
            let name = format!("{name} {}", self.pick(&NOUNS));
            if self.notions.iter().all(|notion| notion.name != name) {
                break name;
            }
        };
        let notion = Notion {
            symbol: format!("{}_{{{}}}", self.pick(&LETTERS), self.notions.len() + 1),
            quantity: self.pick(&QUANTITIES),
            value: 2 + self.below(997) as u64,
            label: format!("def:{}", name.replace(' ', "-")),
            name,
        };
        let Notion {
            name,
            symbol,
            quantity,
            value,
            label,
        } = &notion;
        let property = self.pick(&PROPERTIES);
        let of = match self.notions.last() {
            Some(earlier) => format!("a subset of ${}$", earlier.symbol),
            None => "a set".to_owned(),
        };
        self.add(format!(
            "\\begin{{definition}}\\label{{{label}}}\nA \\emph{{{name}}}, written ${symbol}$, is {of} \
             that is {property}.\nIts {quantity} is the number ${value}$.\n\\end{{definition}}"
        ));
        self.notions.push(notion);
    }

    fn prove(&mut self) {
        let (about, other) = (
            self.below(self.notions.len()),
            self.below(self.notions.len()),
        );
        let kind = self.pick(&["theorem", "lemma", "proposition"]);
        let label = format!("{kind}:{}", self.theorems.len() + 1);
        let property = self.pick(&PROPERTIES);
        let (a, b) = (&self.notions[about], &self.notions[other]);
        let mut text = format!(
            "\\begin{{{kind}}}\\label{{{label}}}\nLet ${}$ be the {} of Definition~\\ref{{{}}} and let \
             ${}$ be the {} of Definition~\\ref{{{}}}.\nThen ${} \\cap {}$ is {property}.\n\\end{{{kind}}}\n\n\
             \\begin{{proof}}\nRecall that ${}$ has {} ${}$ and that ${}$ has {} ${}$.\n",
            a.symbol,
            a.name,
            a.label,
            b.symbol,
            b.name,
            b.label,
            a.symbol,
            b.symbol,
            a.symbol,
            a.quantity,
            a.value,
            b.symbol,
            b.quantity,
            b.value,
        );
        if !self.theorems.is_empty() {
            let used = self.below(self.theorems.len());
            let method = self.pick(&METHODS);
            text += &format!("The claim follows from {}, {method}.\n", self.cite(used));
        }
        self.add(text + "\\end{proof}");
        self.theorems.push(Theorem {
            kind,
            label,
            about,
            property,
        });
    }

    fn calculate(&mut self) {
        let label = format!("eq:{}", self.equations.len() + 1);
        let (a, b) = (
            self.below(self.notions.len()),
            self.below(self.notions.len()),
        );
        let (a, b) = (&self.notions[a], &self.notions[b]);
        let formula = format!(
            "\\sum_{{k=1}}^{{{}}} \\mu_k({}) \\le {} \\int_{{{}}} f^{{{}}} \\, d\\nu",
            a.value,
            a.symbol,
            a.value + b.value,
            b.symbol,
            2 + a.value % 7,
        );
        let name = &a.name;
        self.add(format!(
            "Summing over the {name} we obtain\n\\begin{{equation}}\\label{{{label}}}\n{formula}.\n\\end{{equation}}"
        ));
        self.equations.push((label, formula));
    }

    fn recall(&mut self) {
        let pick = self.below(self.notions.len() + self.theorems.len() + self.equations.len());
        let text = if let Some(notion) = self.notions.get(pick) {
            format!(
                "By Definition~\\ref{{{}}} the {} ${}$ has {} ${}$, which we use from here on.",
                notion.label, notion.name, notion.symbol, notion.quantity, notion.value
            )
        } else if pick < self.notions.len() + self.theorems.len() {
            let theorem = pick - self.notions.len();
            let method = self.pick(&METHODS);
            format!(
                "We return to {}; it can also be shown {method}.",
                self.cite(theorem)
            )
        } else {
            let (label, formula) = &self.equations[pick - self.notions.len() - self.theorems.len()];
            format!("Inequality~\\eqref{{{label}}} reads ${formula}$ and is sharp.")
        };
        self.add(text);
    }

    fn cite(&self, theorem: usize) -> String {
        let Theorem {
            kind,
            label,
            about,
            property,
        } = &self.theorems[theorem];
        let symbol = &self.notions[*about].symbol;
        format!("the {kind}~\\ref{{{label}}}, where an intersection with ${symbol}$ is {property}")
    }

    fn add(&mut self, paragraph: String) {
        self.text += &paragraph;
        self.text += "\n\n";
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }

    /// A number from 0 to `end - 1`; `rand`'s own ranges may change between its versions.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * end as u128) >> 64) as usize
    }
}
