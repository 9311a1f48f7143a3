//! Needles placed in a haystack: length of the prompt, places, and errors.

use longspan_data::{HaystackError, Place, Prompt, PromptTexts, Tokenizer, hide};

fn texts<'a>(needles: &[(&'a str, f64)]) -> PromptTexts<'a> {
    PromptTexts {
        before: "<|im_start|>",
        needles: needles.to_vec(),
        after: "\n?",
        answer: vec!["4", "2"],
    }
}

/// Builds a prompt from bytes, so that texts and tokens have the same length.
fn prompt(
    texts: &PromptTexts,
    fed: usize,
    depth: f64,
    haystack: &str,
) -> Result<Prompt, HaystackError> {
    let tokenizer = Tokenizer::bytes();
    let place = Place {
        fed,
        spare: 3,
        depth,
    };
    hide(texts, place, &tokenizer.encode(haystack), &tokenizer)
}

fn text(prompt: &Prompt) -> String {
    Tokenizer::bytes().decode(&prompt.ids).unwrap()
}

#[test]
fn a_needle_goes_to_the_nearest_sentence_end() {
    // 100 tokens: 1 before, 5 of the needle, 2 after, 2 of the answer (one is not fed), 3 spare.
    let fed = 100 + 1 + 5 + 2 + 2 - 1 + 3;
    let haystack = format!("{}. {}", "a".repeat(47), "b".repeat(100));
    let prompt = prompt(&texts(&[(" PIN.", 0.5)]), fed, 0.5, &haystack).unwrap();
    let (a, b) = ("a".repeat(47), "b".repeat(51));
    assert_eq!(text(&prompt), format!("<|im_start|>{a}. PIN. {b}\n?"));
    assert_eq!(prompt.ids[0], 257);
    assert_eq!(prompt.depth, 0.48);
    assert_eq!(prompt.answer, [[52], [50]]);
}

#[test]
fn a_distant_sentence_end_is_not_used() {
    let fed = 100 + 1 + 5 + 2 + 2 - 1 + 3;
    for haystack in [
        format!("{}. {}", "a".repeat(40), "b".repeat(100)),
        // A full stop inside a number.
        format!("{}3.14{}", "a".repeat(47), "b".repeat(100)),
    ] {
        let prompt = prompt(&texts(&[(" PIN.", 0.5)]), fed, 0.5, &haystack).unwrap();
        assert_eq!(text(&prompt).find(" PIN."), Some("<|im_start|>".len() + 50));
        assert_eq!(prompt.depth, 0.5);
    }
}

#[test]
fn needles_at_one_place_are_ordered_by_depth() {
    let haystack = format!("{}. {}", "a".repeat(47), "b".repeat(100));
    let needles = [(" B", 0.51), (" A", 0.47), (" C", 1.0)];
    let prompt = prompt(&texts(&needles), 114, 0.51, &haystack).unwrap();
    let text = text(&prompt);
    assert!(text.contains("a. A B b"), "{text}");
    assert!(text.ends_with("b C\n?"), "{text}");
}

#[test]
fn a_length_without_room_and_a_short_haystack_are_errors() {
    let texts = texts(&[(" PIN.", 0.5)]);
    let taken = 1 + 5 + 2 + 2 - 1 + 3;
    let error = prompt(&texts, taken, 0.5, "text").unwrap_err();
    assert_eq!(error, HaystackError::NoRoom { taken, fed: taken });
    assert!(prompt(&texts, taken + 4, 0.5, "text").is_ok());
    let error = prompt(&texts, taken + 5, 0.5, "text").unwrap_err();
    let expected = HaystackError::TooShort {
        found: 4,
        needed: 5,
        fed: taken + 5,
    };
    assert_eq!(error, expected);
}
