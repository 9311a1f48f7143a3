//! A template filled in for one trial.

/// Needles, question and answer of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Texts to hide. The first [`Filled::values`]`.len()` are asked for and keep this order in the
    /// haystack; the others may be anywhere. [`Filled::depths`] places all of them.
    pub needles: Vec<String>,
    /// The key of the needles asked for, then the key of each other needle. Empty if the needle
    /// template has no `{key}`.
    pub keys: Vec<String>,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The values asked for, in the order of the answer.
    pub values: Vec<String>,
    /// The end of each value in the answer, in bytes.
    pub(super) value_ends: Vec<usize>,
}

impl Filled {
    /// The answer, cut after each value except the last: one part per value.
    pub fn answer_parts(&self) -> Vec<&str> {
        let last = self.value_ends.len() - 1;
        let mut start = 0;
        let ends = self.value_ends.iter().enumerate();
        ends.map(|(i, &end)| {
            let end = if i == last { self.answer.len() } else { end };
            let part = &self.answer[start..end];
            start = end;
            part
        })
        .collect()
    }

    /// The depth of each needle, 0 to 1, with one of those asked for at `depth`. Needles are evenly
    /// spaced and wrap around at the end.
    pub fn depths(&self, depth: f64) -> Vec<f64> {
        let (count, asked) = (self.needles.len(), self.values.len());
        let slots = (0..count).map(|i| {
            let slot = depth + i as f64 / count as f64;
            if i > 0 && slot >= 1.0 {
                slot - 1.0
            } else {
                slot
            }
        });
        let mut depths: Vec<f64> = slots.collect();
        // Needles asked for stand in the order of the answer.
        depths[..asked].sort_by(f64::total_cmp);
        depths
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use longspan_data::Tokenizer;
    use rand::SeedableRng;

    use super::*;
    use crate::tasks::{Draw, TASKS, TaskRng, template};

    fn filled(name: &str) -> Filled {
        template(name).unwrap().draw(&mut TaskRng::seed_from_u64(0))
    }

    #[test]
    fn the_answer_is_cut_after_each_value() {
        let mut multi = template("multi-value").unwrap();
        multi.answer = " {value} (all of {key}).".into();
        multi.separator = Some(" and ".into());
        multi.value = Draw::List(["a", "b", "c", "d"].map(String::from).into());
        multi.check().unwrap();
        let filled = multi.draw(&mut TaskRng::seed_from_u64(3));
        let parts = filled.answer_parts();
        assert_eq!(parts.concat(), filled.answer);
        assert_eq!(parts[0], format!(" {}", filled.values[0]));
        assert_eq!(parts[1], format!(" and {}", filled.values[1]));
        assert!(parts[3].starts_with(&format!(" and {} (all of ", filled.values[3])));
    }

    #[test]
    fn several_needles_are_evenly_spaced() {
        let key = filled("multi-key");
        assert_eq!(key.depths(0.0), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(key.depths(0.5), [0.5, 0.75, 0.0, 0.25]);
        assert_eq!(key.depths(1.0), [1.0, 0.25, 0.5, 0.75]);
        // All four are asked for, in the order of the answer.
        let value = filled("multi-value");
        assert_eq!(value.depths(0.5), [0.0, 0.25, 0.5, 0.75]);
    }

    /// In Qwen's vocabulary, encoding the parts of an answer gives the ids of the whole answer.
    #[test]
    fn parts_encode_as_the_whole_answer() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/qwen/qwen.tiktoken");
        if !path.exists() {
            println!("skipped: ../shared/qwen/qwen.tiktoken is missing");
            return;
        }
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        let mut own = template("multi-value").unwrap();
        own.value = Draw::Words(2);
        let registered = TASKS.iter().filter_map(|task| task.template());
        for template in registered.chain([own]) {
            for seed in 0..20 {
                let filled = template.draw(&mut TaskRng::seed_from_u64(seed));
                let parts = filled.answer_parts().into_iter();
                let parts: Vec<u32> = parts.flat_map(|part| tokenizer.encode(part)).collect();
                assert_eq!(parts, tokenizer.encode(&filled.answer), "{}", filled.answer);
            }
        }
    }
}
