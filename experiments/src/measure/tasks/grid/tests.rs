//! The prompts of a grid, and a task that has neither needle nor depth.

use std::sync::Arc;

use longspan_data::Prompt;
use longspan_rope::{Choice, Options, Variant};

use super::*;
use crate::config::TaskEntry;
use crate::tasks::{EvaluationTask, TaskError};

const VOCABULARY: usize = 512;

/// Length, task, scorer, depth, and the digest of the prompts.
const DIGESTS: [(usize, &str, Scorer, f64, &str); 10] = [
    (
        500,
        "pass-key",
        Scorer::TeacherForced,
        0.5,
        "f12d2319364c4c27dab1a5b6bd45bcb482ba209ead7a74fcc31a57903304d48c",
    ),
    (
        700,
        "pass-key",
        Scorer::Generate,
        0.0,
        "97df4419c386fe46503dba67e6ee67d5eb777a15d2907451e886a09405b4df41",
    ),
    (
        500,
        "fact",
        Scorer::TeacherForced,
        0.5,
        "692d76a43b832feeaa7405b8f24f698416437d75b6b44b370d56f4b38339a451",
    ),
    (
        700,
        "fact",
        Scorer::Generate,
        0.0,
        "a9ff47aa9f6b99e7576be9652ca2f4c2f7b20e97089876309bf0903085be0a1a",
    ),
    (
        500,
        "multi-key",
        Scorer::TeacherForced,
        0.5,
        "1da3360333e3c797c3168e4e55d5d4f0680f5602c4b166c9d787403af5f385aa",
    ),
    (
        700,
        "multi-key",
        Scorer::Generate,
        0.0,
        "eb2ffc9905f9d019edcef8dabb3b53e9465c22bc8457786c7515c7df03296c5c",
    ),
    (
        500,
        "multi-value",
        Scorer::TeacherForced,
        0.5,
        "2ef61dcddb99af1a0d4a36ca59f8671e1dde3e4d52162abbb5234f51b4ea8c5a",
    ),
    (
        700,
        "multi-value",
        Scorer::Generate,
        0.0,
        "04ee9caf88c8ccc5334255a69ebeb5457f152569e6fe507734ece531fa846dbf",
    ),
    (
        500,
        "san-francisco",
        Scorer::TeacherForced,
        0.5,
        "0bb1a41c570662c5394491a9bce95fe346ea1143a4ffc2070afc94e97995ed1f",
    ),
    (
        700,
        "san-francisco",
        Scorer::Generate,
        0.0,
        "6f2bd7062dc9d74b5770cb84f2707dcb175c2780302d04f95c971def962dfeed",
    ),
];

fn needle(tasks: Vec<TaskEntry>) -> NeedleConfig {
    let text = "lengths = [500, 700]\ndepths = [0, 0.5]\nseed = 3\n\
                scorer = [\"teacher-forced\", \"generate\"]";
    let mut needle: NeedleConfig = toml::from_str(text).unwrap();
    needle.tasks = tasks;
    needle
}

/// Prompts over the built-in articles, in the byte vocabulary.
fn prompts(needle: NeedleConfig) -> Prompts {
    let data = DataConfig {
        path: "builtin:articles".to_owned(),
        text_field: "text".to_owned(),
    };
    Prompts::new(&data, needle, Rc::new(Tokenizer::bytes()), VOCABULARY).unwrap()
}

/// Record keys contain these digests: a change of any of them makes existing records obsolete.
#[test]
fn digests_of_prompts_do_not_change() {
    // Two digests of each task follow each other.
    let tasks = DIGESTS.iter().step_by(2);
    let tasks = tasks.map(|&(_, task, ..)| TaskEntry::Name(task.to_owned()));
    let prompts = prompts(needle(tasks.collect()));
    let grid = prompts.grid(VOCABULARY).unwrap();
    assert_eq!(grid.len(), 2 * 5 * 2 * 2);
    let first: Vec<(usize, Scorer, f64)> = (grid[..5].iter())
        .map(|point| (point.task, point.scorer, point.depth))
        .collect();
    let (forced, generate) = (Scorer::TeacherForced, Scorer::Generate);
    assert_eq!(
        first,
        [
            (0, forced, 0.0),
            (0, forced, 0.5),
            (0, generate, 0.0),
            (0, generate, 0.5),
            (1, forced, 0.0)
        ]
    );
    let digest = |length: usize, task: &str, scorer: Scorer, depth: f64| {
        let point = grid.iter().find(|point| {
            (point.length, prompts.name(point), point.scorer, point.depth)
                == (length, task, scorer, depth)
        });
        point.unwrap().digest.as_str()
    };
    for (length, task, scorer, depth, golden) in DIGESTS {
        assert_eq!(digest(length, task, scorer, depth), golden, "{task}");
    }
}

/// A task without a needle: how many tokens of one kind a text has.
struct Count;

impl Variant for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn settings(&self) -> Options {
        [("letter".to_owned(), "e".into())].into_iter().collect()
    }
}

impl EvaluationTask for Count {
    fn has_depth(&self) -> bool {
        false
    }

    fn check(&self, options: &Options) -> Result<(), TaskError> {
        assert_eq!(options["letter"], "e");
        Ok(())
    }

    fn question(
        &self,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
        _rng: &mut TaskRng,
        _options: &Options,
    ) -> Result<Question, TaskError> {
        let question = tokenizer.encode("\nHow many e?");
        // One digit, which is not fed.
        let text = &haystack[..place.fed - place.spare - question.len()];
        let count = text.iter().filter(|&&id| id == u32::from(b'e')).count();
        let answer = (count % 10).to_string();
        Ok(Question {
            prompt: Prompt {
                ids: [text, &question].concat(),
                answer: vec![tokenizer.encode(&answer)],
                depth: place.depth,
            },
            values: vec![answer.clone()],
            answer,
        })
    }

    fn judge(&self, question: &Question, text: &str) -> Vec<bool> {
        vec![text.trim_end().ends_with(&question.answer)]
    }
}

#[test]
fn a_task_outside_the_registry_needs_no_needle_and_no_depth() {
    let own: Arc<dyn EvaluationTask> = Arc::new(Count);
    let prompts = prompts(needle(vec![TaskEntry::Table(Choice::own(own))]));
    let grid = prompts.grid(VOCABULARY).unwrap();
    // One point for each length and scorer.
    assert_eq!(grid.len(), 2 * 2);
    for point in &grid {
        assert_eq!((prompts.name(point), point.depth), ("count", 0.0));
        let task = prompts.task(point);
        assert_eq!(
            task.identity(),
            serde_json::json!({ "kind": "count", "letter": "e" })
        );
        let questions = prompts.at(point).unwrap();
        assert_eq!(questions.len(), 5);
        for question in &questions {
            let spare = if point.scorer == Scorer::Generate {
                SPARE
            } else {
                0
            };
            assert_eq!(question.prompt.ids.len() + spare, point.length);
            let judge = |text: String| task.judge(question, &text);
            assert_eq!(judge(format!("There are {}", question.answer)), [true]);
            assert_eq!(judge(format!("{}x", question.answer)), [false]);
        }
    }
    assert_ne!(grid[0].digest, grid[1].digest);
}
