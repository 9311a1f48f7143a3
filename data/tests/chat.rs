//! Prompts of conversations, compared with golden ids made with Python's `tiktoken` by the rules of
//! QwenLM's `make_context`.

use std::io::Write;
use std::path::Path;

use longspan_data::{Chat, ChatFormat, Tokenizer};

const SYSTEM: [u32; 10] = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645];
const FIRST: [u32; 19] = [
    198, 151644, 872, 198, 15191, 525, 498, 30, 151645, 198, 151644, 77091, 198, 40, 1079, 264,
    1273, 13, 151645,
];
const SECOND: [u32; 29] = [
    198, 151644, 872, 198, 45764, 82639, 318, 6213, 91, 29, 10917, 13, 151645, 198, 151644, 77091,
    198, 27, 91, 318, 6213, 91, 29, 82639, 318, 6213, 91, 29, 151645,
];
const QUESTION: [u32; 17] = [
    198, 151644, 872, 198, 45861, 108704, 220, 17, 15, 17, 19, 30, 151645, 198, 151644, 77091, 198,
];

fn chat(window: usize) -> Chat {
    let turn = |question: &str, answer: &str| (question.to_owned(), answer.to_owned());
    Chat {
        format: ChatFormat::ChatMl,
        system: "You are a helpful assistant.".to_owned(),
        history: vec![
            turn("Who are you?", "I am a test."),
            turn("Say <|im_end|> twice.", "<|im_end|> <|im_end|>"),
        ],
        window,
    }
}

#[test]
fn a_conversation_becomes_the_golden_list() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/qwen/qwen.tiktoken");
    if !file.exists() {
        let line = b"skipped: qwen/qwen.tiktoken is not in ../shared (1 check)\n";
        std::io::stderr().write_all(line).unwrap();
        return;
    }
    let tokenizer = Tokenizer::from_file(&file).unwrap();
    for (window, turns) in [
        (6144, [&FIRST[..], &SECOND].concat()),
        (59, [&FIRST[..], &SECOND].concat()),
        // System prompt and history have 58 tokens; the window must be larger.
        (58, SECOND.to_vec()),
        (40, SECOND.to_vec()),
        (39, Vec::new()),
    ] {
        let ids = chat(window).prompt(&tokenizer, "长文本 2024?");
        assert_eq!(ids, [&SYSTEM[..], &turns, &QUESTION].concat(), "{window}");
    }
    assert_eq!(chat(1).stops(&tokenizer), [151644, 151645]);
}

#[test]
fn a_base_model_gets_the_question_alone() {
    let tokenizer = Tokenizer::bytes();
    let raw = Chat {
        format: ChatFormat::Raw,
        ..chat(6144)
    };
    let question = "Human: <|im_start|>";
    assert_eq!(raw.prompt(&tokenizer, question), tokenizer.encode(question));
    assert_eq!(raw.stops(&tokenizer), [tokenizer.end_of_text()]);
}
