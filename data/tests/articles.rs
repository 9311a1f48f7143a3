//! The built-in articles: the same everywhere, different from each other, and worth remembering.

use longspan_data::{Corpus, Document};

fn articles(count: usize) -> Vec<Document> {
    let corpus = Corpus::open("builtin:articles", "text").unwrap();
    assert!(corpus.files().is_empty());
    corpus.documents().take(count).map(Result::unwrap).collect()
}

#[test]
fn they_are_the_same_everywhere() {
    let first = &articles(1)[0];
    assert_eq!(first.source, "article 1");
    assert_eq!(
        blake3::hash(first.text.as_bytes()).to_hex().as_str(),
        "bd408153c35f87a2bb46e21df35eccd32a63b80479e0c5c4f09fa829b89eb595"
    );
}

#[test]
fn they_are_long_and_differ() {
    let articles = articles(usize::MAX);
    assert_eq!(articles.len(), 64);
    for (i, a) in articles.iter().enumerate() {
        assert!(
            (190_000..250_000).contains(&a.text.len()),
            "{}",
            a.text.len()
        );
        for b in &articles[..i] {
            assert_ne!(a.text, b.text);
        }
    }
}

#[test]
fn labels_are_defined_once_and_used_long_after() {
    let text = &articles(1)[0].text;
    let mut far = 0;
    for (at, _) in text.match_indices("\\ref{") {
        let label = &text[at + 5..at + text[at..].find('}').unwrap()];
        let definition = format!("\\label{{{label}}}");
        assert_eq!(text.matches(&definition).count(), 1, "{label}");
        let distance = at as i64 - text.find(&definition).unwrap() as i64;
        assert!(distance > 0, "{label} is used before it is defined");
        far += usize::from(distance > 50_000);
    }
    assert!(
        far > 100,
        "{far} references reach back more than 50,000 bytes"
    );
}
