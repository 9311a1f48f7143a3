//! The two ways to get an answer from a model.

use serde::{Deserialize, Serialize};

/// How a model is asked, and what counts as right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scorer {
    /// The expected answer is fed in one pass; each of its tokens must be the most likely one at
    /// its position (jzhang38/EasyContext).
    TeacherForced,
    /// The model generates greedily; [`EvaluationTask::judge`](super::EvaluationTask::judge) finds
    /// the values in its text (RULER, arXiv 2404.06654).
    Generate,
}

impl Scorer {
    /// The name in configs, records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Scorer::TeacherForced => "teacher-forced",
            Scorer::Generate => "generate",
        }
    }

    /// What counts as right, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Scorer::TeacherForced => {
                "the answer is fed, and every token of a value must be the most likely one at its place"
            }
            Scorer::Generate => {
                "the most likely token is written again and again, and a value must occur in the text, in upper or lower case"
            }
        }
    }
}
