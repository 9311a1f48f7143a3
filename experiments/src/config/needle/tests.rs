//! Tasks of a config, and what is wrong with them.

use super::*;

const OWN: &str = "\n[[task]]\nname = \"own\"\nneedle = \" It is {value}.\"\nquestion = \"It is\"\n\
                   answer = \" {value}\"\n";

fn config(tasks: &str) -> NeedleConfig {
    toml::from_str(&format!("lengths = [200]\n{tasks}")).unwrap()
}

fn names(tasks: &str) -> Vec<String> {
    config(tasks).task_names().unwrap()
}

fn refused(tasks: &str, words: &[&str]) {
    let error = format!("{:#}", config(tasks).check().unwrap_err());
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
}

#[test]
fn tasks_are_names_tables_and_templates() {
    assert_eq!(names(""), ["pass-key"]);
    assert_eq!(names(OWN), ["own"]);
    let mixed = format!("tasks = [\"fact\", \"own\", {{ kind = \"multi-key\" }}]{OWN}");
    assert_eq!(names(&mixed), ["fact", "own", "multi-key"]);
    assert_eq!(
        names(&format!("tasks = [{{ kind = \"own\" }}]{OWN}")),
        ["own"]
    );
    // A table without options is the task of that name.
    let task = |tasks| config(tasks).tasks().unwrap().remove(0);
    let (name, table) = ("tasks = [\"fact\"]", "tasks = [{ kind = \"fact\" }]");
    assert_eq!(task(name), task(table));
    assert_eq!(task(name).identity(), json!("fact"));
    assert_eq!(task(OWN).identity(), json!("own"));
}

#[test]
fn bad_tasks_are_refused() {
    refused(
        "tasks = [{ kind = \"fact\", hops = 4 }]",
        &["needle.tasks", "`fact`", "hops", "it takes no options"],
    );
    refused(
        &format!("tasks = [{{ kind = \"own\", hops = 4 }}]{OWN}"),
        &["needle.tasks", "\"own\"", "takes no options"],
    );
    refused(
        "tasks = [\"fact\", { kind = \"fact\" }]",
        &["\"fact\" stands twice"],
    );
    refused(
        "tasks = [{ kind = \"vt\" }]",
        &["\"vt\" is not known", "pass-key, fact"],
    );
    refused(
        &OWN.replace(" {value}", ""),
        &["needle.task", "own", "lacks {value}"],
    );
    let error = toml::from_str::<NeedleConfig>("lengths = [200]\ntasks = [5]").unwrap_err();
    assert!(error.to_string().contains("a task is a name"), "{error}");
}

/// Run folders compare configs in this form.
#[test]
fn a_config_is_written_as_before() {
    let written = |config: &NeedleConfig| serde_json::to_string(config).unwrap();
    assert_eq!(
        written(&config("tasks = [\"fact\"]")),
        "{\"lengths\":[200],\"depths\":5,\"keys\":5,\"seed\":0,\"tasks\":[\"fact\"],\
         \"scorer\":\"teacher-forced\",\"threshold\":0.85}"
    );
    assert_eq!(
        written(&config(OWN)),
        "{\"lengths\":[200],\"depths\":5,\"keys\":5,\"seed\":0,\"scorer\":\"teacher-forced\",\
         \"threshold\":0.85,\"task\":[{\"name\":\"own\",\"needle\":\" It is {value}.\",\
         \"question\":\"It is\",\"answer\":\" {value}\",\"value\":\"digits:5\",\"needles\":1,\
         \"asked\":1,\"prompt\":\"{haystack}\\n{question}\"}]}"
    );
    let table = config("tasks = [{ kind = \"fact\" }]");
    let again: NeedleConfig = serde_json::from_str(&written(&table)).unwrap();
    assert_eq!(again, table);
    assert!(written(&table).contains("\"tasks\":[{\"kind\":\"fact\"}]"));
}
