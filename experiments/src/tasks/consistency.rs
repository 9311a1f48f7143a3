//! Checks that the parts of a template fit together.

use super::{Draw, TaskError, Template};

/// Most needles in one prompt. Drawing compares each with all others: quadratic time.
const MOST_NEEDLES: usize = 10_000;

impl Template {
    /// Checks that the templates fit together and that keys and values can be drawn.
    ///
    /// # Errors
    /// [`TaskError::Template`] names the wrong key and its value.
    pub fn check(&self) -> Result<(), TaskError> {
        self.check_templates()?;
        self.check_counts()?;
        self.check_keys()?;
        self.check_sets()
    }

    fn ensure(&self, good: bool, problem: String) -> Result<(), TaskError> {
        let task = self.name.clone();
        good.then_some(())
            .ok_or(TaskError::Template { task, problem })
    }

    /// Checks the name and that each template has its placeholders.
    fn check_templates(&self) -> Result<(), TaskError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.ensure(
            !self.name.is_empty() && self.name.chars().all(plain),
            "the name becomes part of file names; use letters, digits, - and _".to_owned(),
        )?;
        for (key, template) in [("needle", &self.needle), ("answer", &self.answer)] {
            self.ensure(
                template.contains("{value}"),
                format!("{key} = {template:?} lacks {{value}}; put it where the value belongs"),
            )?;
        }
        self.ensure(
            self.answer.matches("{value}").count() == 1,
            format!(
                "answer = {:?} has {{value}} more than once; give it once, separator joins several \
                 values",
                self.answer
            ),
        )?;
        for part in ["{haystack}", "{question}"] {
            self.ensure(
                self.prompt.matches(part).count() == 1,
                format!("prompt = {:?} must have {part} exactly once", self.prompt),
            )?;
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), TaskError> {
        self.ensure(
            self.needles <= MOST_NEEDLES,
            format!("needles = {}; give {MOST_NEEDLES} at most", self.needles),
        )?;
        self.ensure(
            (1..=self.needles).contains(&self.asked),
            format!(
                "asked = {} of needles = {}; ask for at least one and at most all of them",
                self.asked, self.needles
            ),
        )
    }

    /// Checks that `{key}` tells needles apart where it must, and that no setting is without
    /// effect.
    fn check_keys(&self) -> Result<(), TaskError> {
        let keyed = self.needle.contains("{key}");
        for (key, template) in [("question", &self.question), ("answer", &self.answer)] {
            self.ensure(
                keyed || !template.contains("{key}"),
                format!(
                    "{key} = {template:?} has {{key}}, but needle = {:?} has none; add it to needle or \
                     remove it from {key}",
                    self.needle
                ),
            )?;
        }
        self.ensure(
            self.asked == self.needles || keyed && self.question.contains("{key}"),
            format!(
                "needles = {} and asked = {}: needle and question must have {{key}}, which tells the \
                 needles apart",
                self.needles, self.asked
            ),
        )?;
        self.ensure(
            keyed || self.key.is_none(),
            "key has no effect, since needle has no {key}; remove it".to_owned(),
        )?;
        self.ensure(
            self.asked > 1 || self.separator.is_none(),
            "separator has no effect with asked = 1; remove it".to_owned(),
        )
    }

    /// Checks that the sets of keys and values are large enough, without blank or repeated texts.
    fn check_sets(&self) -> Result<(), TaskError> {
        let keyed = self.needle.contains("{key}");
        let keys = self.needles - self.asked + 1;
        for (key, draw, needed) in [
            ("key", self.keys(), if keyed { keys } else { 0 }),
            ("value", &self.value, self.needles),
        ] {
            if let Draw::List(list) = draw {
                for (i, entry) in list.iter().enumerate() {
                    self.ensure(
                        !entry.trim().is_empty() && !list[..i].contains(entry),
                        format!("{key}: {entry:?} is blank or stands twice in the list"),
                    )?;
                }
            }
            self.ensure(
                draw.variety() >= needed,
                format!(
                    "{key} has {} different ones to draw from, but needles = {} and asked = {} need \
                     {needed}",
                    draw.variety(),
                    self.needles,
                    self.asked
                ),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::template;

    #[test]
    fn contradictory_templates_are_refused() {
        let refused = |name: &str, change: fn(&mut Template), words: &[&str]| {
            let mut template = template(name).unwrap();
            template.check().unwrap();
            change(&mut template);
            let error = template.check().unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error}");
            }
        };
        refused("fact", |t| t.name = "a/b".into(), &["a/b", "file names"]);
        refused(
            "fact",
            |t| t.needle = " {key}".into(),
            &["needle", "{value}"],
        );
        refused("fact", |t| t.answer = "x".into(), &["answer", "{value}"]);
        refused(
            "fact",
            |t| t.answer = "{value}{value}".into(),
            &["more than once"],
        );
        refused(
            "fact",
            |t| t.prompt = "{haystack}".into(),
            &["prompt", "{question}"],
        );
        refused("fact", |t| t.asked = 2, &["asked = 2", "needles = 1"]);
        refused("fact", |t| t.asked = 0, &["asked = 0"]);
        refused(
            "fact",
            |t| t.needles = MOST_NEEDLES + 1,
            &["needles = 10001", "10000 at most"],
        );
        refused("pass-key", |t| t.needles = 2, &["needles = 2", "{key}"]);
        refused(
            "pass-key",
            |t| t.key = Some(Draw::Words(1)),
            &["key has no effect"],
        );
        refused(
            "pass-key",
            |t| t.question = "{key}?".into(),
            &["question", "{key}"],
        );
        refused(
            "pass-key",
            |t| t.separator = Some(",".into()),
            &["separator"],
        );
        refused(
            "multi-key",
            |t| t.value = Draw::List(vec!["a".into()]),
            &["value", "1 different", "need 4"],
        );
        refused(
            "multi-key",
            |t| t.key = Some(Draw::List(vec!["a".into(); 4])),
            &["\"a\"", "twice"],
        );
        refused(
            "multi-key",
            |t| t.value = Draw::List(vec![" ".into(); 4]),
            &["\" \"", "blank"],
        );
    }
}
