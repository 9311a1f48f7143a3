//! What every task of the registry must satisfy. A new task fails here until
//! `tests/golden/tasks/NAME.json` has its questions.

use std::collections::BTreeSet;
use std::path::Path;

use longspan_rope::find;
use rand::SeedableRng;
use serde_json::json;

use super::*;

/// The haystack of the golden questions, repeated to 2000 bytes.
const HAYSTACK: &str = "Rain fell on the hills all night. By noon the road was dry again, and the carts went \
     down to the mill. Who would have thought it? The miller had 3.5 sacks left; he sold two of \
     them. Then the wind turned to the east. Nobody spoke of it!\nThe next day was a market day. ";

/// A question of a task, in the byte vocabulary.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    #[serde(default)]
    options: Options,
    seed: u64,
    fed: usize,
    spare: usize,
    depth: f64,
    prompt: String,
    answer: String,
    parts: Vec<String>,
    values: Vec<String>,
    achieved_depth: f64,
}

fn goldens(task: &dyn EvaluationTask) -> Vec<Golden> {
    let name = task.name();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/tasks")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "`{name}` needs golden questions in {}: {error}",
            path.display()
        )
    });
    let cases: Vec<Golden> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(!cases.is_empty(), "{name}");
    cases
}

#[test]
fn every_task_asks_its_golden_questions() {
    let tokenizer = Tokenizer::bytes();
    let haystack: Vec<u32> = HAYSTACK.bytes().cycle().take(2000).map(u32::from).collect();
    let text = |ids: &[u32]| tokenizer.decode(ids).unwrap();
    for &task in TASKS {
        for golden in goldens(task) {
            let place = Place {
                fed: golden.fed,
                spare: golden.spare,
                depth: golden.depth,
            };
            let rng = &mut TaskRng::seed_from_u64(golden.seed);
            task.check(&golden.options).unwrap();
            let question = task
                .question(place, &haystack, &tokenizer, rng, &golden.options)
                .unwrap();
            let Question {
                prompt,
                answer,
                values,
            } = &question;
            let what = format!("{} with seed {}", task.name(), golden.seed);
            assert_eq!(text(&prompt.ids), golden.prompt, "{what}");
            assert_eq!(*answer, golden.answer, "{what}");
            let parts: Vec<String> = prompt.answer.iter().map(|part| text(part)).collect();
            assert_eq!(parts, golden.parts, "{what}");
            assert_eq!(*values, golden.values, "{what}");
            assert_eq!(prompt.depth, golden.achieved_depth, "{what}");

            // The expected answer is right in each of its values, and no answer in none.
            let right = task.judge(&question, answer);
            assert!(!right.is_empty() && right.iter().all(|&right| right));
            assert!(!task.judge(&question, "").contains(&true), "{what}");
        }
    }
}

#[test]
fn every_task_is_described_and_refuses_unknown_options() {
    let names: BTreeSet<&str> = TASKS.iter().map(|task| task.name()).collect();
    assert_eq!(names.len(), TASKS.len());
    assert!(names.contains(<dyn EvaluationTask as Axis>::DEFAULT));
    let wrong: Options = [("no_such_option".to_owned(), json!(1))]
        .into_iter()
        .collect();
    for &task in TASKS {
        let name = task.name();
        assert_eq!(find::<dyn EvaluationTask>(name).unwrap().name(), name);
        assert!(!task.summary().is_empty() && !task.summary().contains('\n'));
        assert!(!task.source().is_empty(), "{name}");
        for option in task.options() {
            assert!(!option.meaning.is_empty(), "{name}: {}", option.name);
        }
        let error = task.check(&wrong).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(error.contains("no_such_option"), "{error}");
        // Training and help texts find a template by the name of its task.
        if let Some(template) = task.template() {
            assert_eq!(template.name, name);
        }
    }
}

#[test]
fn an_unknown_template_lists_the_known_ones() {
    let error = template("passkey").unwrap_err().to_string();
    let known = error.strip_prefix("no needle task \"passkey\"; there are ");
    let known: Vec<&str> = known.expect(&error).split(", ").collect();
    let with_template = TASKS.iter().filter(|task| task.template().is_some());
    assert!(with_template.map(|task| task.name()).eq(known), "{error}");
}

#[test]
fn values_are_found_in_any_case() {
    let values = ["Dolores Park", " 123"].map(String::from);
    assert_eq!(values_found(&values, "in DOLORES park, 124"), [true, false]);
    assert_eq!(values_found(&values, "123"), [false, true]);
}
