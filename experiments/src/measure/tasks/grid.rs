//! The grid of lengths, tasks, scorers and depths, and the questions at each of its points.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use longspan_data::{Corpus, Place, Tokenizer};
use rand::SeedableRng;

use crate::config::{DataConfig, NamedTask, NeedleConfig};
use crate::measure::check_ids;
use crate::tasks::{Question, Scorer, TaskRng};

/// Tokens that a model may generate beyond the length of the expected answer.
pub const SPARE: usize = 8;

/// A point of the grid, at which every method has a cell.
#[derive(Clone, Debug)]
pub struct GridPoint {
    /// Index into the tasks of the run.
    pub task: usize,
    /// How the task is scored.
    pub scorer: Scorer,
    /// Tokens fed when the last answer token is scored.
    pub length: usize,
    /// Fraction of the haystack before the needle.
    pub depth: f64,
    /// Digest of prompts, answers and values.
    pub digest: String,
}

/// Builds the prompts of a run.
pub struct Prompts {
    needle: NeedleConfig,
    tokenizer: Rc<Tokenizer>,
    /// The tasks, in the order of the config.
    tasks: Vec<NamedTask>,
    /// The beginning of the corpus, documents concatenated.
    haystack: Vec<u32>,
}

impl Prompts {
    /// Reads as much of the corpus as the trials need.
    ///
    /// # Errors
    /// A document cannot be read, the corpus is too short, or a token id is outside the model's
    /// `vocabulary`.
    pub fn new(
        data: &DataConfig,
        needle: NeedleConfig,
        tokenizer: Rc<Tokenizer>,
        vocabulary: usize,
    ) -> Result<Self> {
        let (longest, keys) = (needle.longest(), needle.keys);
        let enough = keys.saturating_mul(longest);
        let mut haystack = Vec::new();
        for document in Corpus::open(&data.path, &data.text_field)?.documents() {
            let document = document?;
            let ids = tokenizer.encode(&document.text);
            check_ids(&document.source, &ids, &tokenizer, vocabulary)?;
            haystack.extend(ids);
            if haystack.len() >= enough {
                haystack.truncate(enough);
                break;
            }
        }
        ensure!(
            haystack.len() >= (longest - 1).saturating_add(keys),
            "data.path = \"{}\": all documents hold {} tokens together, needle.lengths asks for {longest} and \
             needle.keys for {keys} different stretches; lower the length or give more text",
            data.path,
            haystack.len()
        );
        if haystack.len() < enough {
            log::warn!(
                "data.path = \"{}\": {} tokens are less than needle.keys = {keys} times {longest}: the \
                 haystacks of different keys overlap",
                data.path,
                haystack.len()
            );
        }
        Ok(Self {
            tasks: needle.tasks()?,
            needle,
            tokenizer,
            haystack,
        })
    }

    /// Every point of the grid, by length, task, scorer and depth.
    ///
    /// # Errors
    /// A question does not fit into its length, or a token id is outside the model's `vocabulary`.
    pub fn grid(&self, vocabulary: usize) -> Result<Vec<GridPoint>> {
        let mut grid = Vec::new();
        for &length in &self.needle.lengths {
            for (index, task) in self.tasks.iter().enumerate() {
                for scorer in self.needle.scorers() {
                    for depth in self.needle.depths_of(task)? {
                        let mut point = GridPoint {
                            task: index,
                            scorer,
                            length,
                            depth,
                            digest: String::new(),
                        };
                        let questions = self.at(&point)?;
                        let name = format!("needle.task {:?}", task.name);
                        for Question { prompt, .. } in &questions {
                            let ids = [&prompt.ids[..], &prompt.answer.concat()].concat();
                            check_ids(&name, &ids, &self.tokenizer, vocabulary)?;
                        }
                        point.digest = digest_of(&questions);
                        grid.push(point);
                    }
                }
            }
        }
        Ok(grid)
    }

    /// The task of a point.
    pub fn task(&self, point: &GridPoint) -> &NamedTask {
        &self.tasks[point.task]
    }

    /// The name of the task of a point.
    pub fn name(&self, point: &GridPoint) -> &str {
        &self.task(point).name
    }

    /// The trials at a point. What a trial draws depends only on the seed, the depth and the trial's
    /// number, so methods, lengths and scorers get the same questions; its haystack depends only on
    /// its number.
    ///
    /// # Errors
    /// A question does not fit into its length.
    pub fn at(&self, point: &GridPoint) -> Result<Vec<Question>> {
        let task = self.task(point);
        let spare = match point.scorer {
            Scorer::TeacherForced => 0,
            Scorer::Generate => SPARE,
        };
        let place = Place {
            fed: point.length,
            spare,
            depth: point.depth,
        };
        let keys = self.needle.keys;
        let slack = self.haystack.len() - self.needle.longest();
        let trials = (0..keys).map(|trial| {
            let haystack = &self.haystack[trial * slack / (keys - 1)..];
            let rng = &mut rng(self.needle.seed, point.depth, trial);
            let question = task.question(place, haystack, &self.tokenizer, rng);
            question.with_context(|| format!("needle.lengths: {}", point.length))
        });
        trials.collect()
    }
}

fn rng(seed: u32, depth: f64, trial: usize) -> TaskRng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&depth.to_le_bytes());
    hasher.update(&(trial as u64).to_le_bytes());
    TaskRng::from_seed(*hasher.finalize().as_bytes())
}

/// Digest of everything that is fed and everything that is expected.
fn digest_of(questions: &[Question]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &mut dyn Iterator<Item = u8>| {
        let bytes: Vec<u8> = bytes.collect();
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    };
    for Question { prompt, values, .. } in questions {
        for ids in std::iter::once(&prompt.ids).chain(&prompt.answer) {
            add(&mut ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        for value in values {
            add(&mut value.bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longspan_data::Prompt;
    use longspan_rope::{Choice, Options, Variant};

    use super::*;
    use crate::config::TaskEntry;
    use crate::tasks::{EvaluationTask, TASKS, TaskError};

    const VOCABULARY: usize = 512;

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
        let all = TASKS.iter().map(|task| task.name().to_owned());
        let prompts = prompts(needle(all.map(TaskEntry::Name).collect()));
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
        for (length, task, scorer, depth, golden) in [
            (
                500,
                "pass-key",
                forced,
                0.5,
                "f12d2319364c4c27dab1a5b6bd45bcb482ba209ead7a74fcc31a57903304d48c",
            ),
            (
                700,
                "pass-key",
                generate,
                0.0,
                "97df4419c386fe46503dba67e6ee67d5eb777a15d2907451e886a09405b4df41",
            ),
            (
                500,
                "fact",
                forced,
                0.5,
                "692d76a43b832feeaa7405b8f24f698416437d75b6b44b370d56f4b38339a451",
            ),
            (
                700,
                "fact",
                generate,
                0.0,
                "a9ff47aa9f6b99e7576be9652ca2f4c2f7b20e97089876309bf0903085be0a1a",
            ),
            (
                500,
                "multi-key",
                forced,
                0.5,
                "1da3360333e3c797c3168e4e55d5d4f0680f5602c4b166c9d787403af5f385aa",
            ),
            (
                700,
                "multi-key",
                generate,
                0.0,
                "eb2ffc9905f9d019edcef8dabb3b53e9465c22bc8457786c7515c7df03296c5c",
            ),
            (
                500,
                "multi-value",
                forced,
                0.5,
                "2ef61dcddb99af1a0d4a36ca59f8671e1dde3e4d52162abbb5234f51b4ea8c5a",
            ),
            (
                700,
                "multi-value",
                generate,
                0.0,
                "04ee9caf88c8ccc5334255a69ebeb5457f152569e6fe507734ece531fa846dbf",
            ),
            (
                500,
                "san-francisco",
                forced,
                0.5,
                "0bb1a41c570662c5394491a9bce95fe346ea1143a4ffc2070afc94e97995ed1f",
            ),
            (
                700,
                "san-francisco",
                generate,
                0.0,
                "6f2bd7062dc9d74b5770cb84f2707dcb175c2780302d04f95c971def962dfeed",
            ),
        ] {
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
}
