//! Documents that are generated from the code: `docs/config.md` from the doc comments of the
//! config's types, `docs/axes.md` from the registries. `LONGSPAN_BLESS=1` rewrites them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use longspan::figures::FIGURES;
use longspan::protocols::PROTOCOLS;
use longspan::tasks::TASKS;
use longspan_attention::{PATTERNS, SCALES};
use longspan_model::FAMILIES;
use longspan_rope::{METHODS, Variant};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a document with what the code says now, or writes it with `LONGSPAN_BLESS=1`.
#[track_caller]
fn check(name: &str, text: &str) {
    let path = repository().join("docs").join(name);
    if std::env::var("LONGSPAN_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "docs/{name} is not what the code says; run this test with LONGSPAN_BLESS=1, which rewrites it"
    );
}

/// A doc comment or a summary as one line of a Markdown table.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

/// Keys and doc comments of a struct that serde reads, from its source.
fn keys(file: &str, name: &str) -> Vec<(String, String)> {
    let source = std::fs::read_to_string(repository().join(file)).unwrap();
    let start = format!("struct {name} {{\n");
    let at = source
        .find(&start)
        .unwrap_or_else(|| panic!("{file}: no {name}"));
    let body = &source[at + start.len()..];
    let body = &body[..body.find("\n}").unwrap()];
    let (mut keys, mut docs, mut renamed) = (Vec::new(), String::new(), None);
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            docs += text;
        } else if let Some((_, name)) = line.split_once("rename = \"") {
            renamed = name.split('"').next().map(str::to_owned);
        } else if let Some((field, _)) = line.split_once(':')
            && !line.starts_with('#')
        {
            let field = field.trim_start_matches("pub ").to_owned();
            assert!(!docs.is_empty(), "{name}.{field} has no doc comment");
            keys.push((renamed.take().unwrap_or(field), std::mem::take(&mut docs)));
        }
    }
    assert!(!keys.is_empty(), "{file}: {name} has no keys");
    keys
}

#[test]
fn config_is_current() {
    let mut text = "\
# The run config

Generated from the doc comments of the config's types; a test keeps it current.

A run config is a TOML file: `longspan run FILE` measures every `[[method]]` at every length. Paths
are relative to the working directory. An unknown key is an error. `--set KEY=VALUE` replaces a key
(`--set model.path=/models/Qwen-7B`, `--set method.0.sinks=4`). The config with everything applied is
kept as `config.toml` in the run folder. Examples are in `experiments/configs/`.
"
    .to_owned();
    let config = "experiments/src/config";
    for (title, file, name) in [
        ("Tables", format!("{config}/mod.rs"), "RunConfig"),
        ("`[model]`", format!("{config}/mod.rs"), "ModelConfig"),
        ("`[data]`", format!("{config}/mod.rs"), "DataConfig"),
        (
            "`[[method]]`",
            "attention/src/table.rs".to_owned(),
            "MethodTable",
        ),
        (
            "`[perplexity]`",
            format!("{config}/perplexity.rs"),
            "PerplexityConfig",
        ),
        ("`[needle]`", format!("{config}/needle.rs"), "NeedleConfig"),
        (
            "`[[needle.task]]`",
            "experiments/src/tasks/template.rs".to_owned(),
            "Template",
        ),
        (
            "`[[published]]`",
            format!("{config}/published.rs"),
            "Published",
        ),
    ] {
        write!(text, "\n## {title}\n\n| key | meaning |\n|---|---|\n").unwrap();
        for (key, meaning) in keys(&file, name) {
            writeln!(text, "| `{key}` | {} |", one_line(&meaning)).unwrap();
        }
    }
    text += "\nVariants and their options: [axes.md](axes.md). What protocols and tasks measure: \
             [protocols.md](protocols.md).\n";
    check("config.md", &text);
}

fn axis<V: Variant + ?Sized>(text: &mut String, title: &str, key: &str, variants: &[&V]) {
    write!(text, "\n## {title}\n\n`{key}`\n\n").unwrap();
    *text += "| name | what it does | source | options |\n|---|---|---|---|\n";
    for variant in variants {
        let options: Vec<String> = (variant.options().iter())
            .map(|o| format!("`{}` ({}): {}", o.name, o.default, one_line(o.meaning)))
            .collect();
        let (summary, source) = (one_line(variant.summary()), one_line(variant.source()));
        let (name, options) = (variant.name(), options.join("<br>"));
        writeln!(text, "| `{name}` | {summary} | {source} | {options} |").unwrap();
    }
}

#[test]
fn axes_are_current() {
    let mut text = "\
# The axes and their variants

Generated from the registries; a test keeps it current. `longspan list` prints the same. How to add a
variant: [extending.md](extending.md).
"
    .to_owned();
    axis(
        &mut text,
        "Frequency methods",
        "rope = { kind = \"...\" }",
        METHODS,
    );
    axis(
        &mut text,
        "Attention patterns",
        "attention = { kind = \"...\" }",
        PATTERNS,
    );
    axis(
        &mut text,
        "Query scales",
        "scale = { kind = \"...\" }",
        SCALES,
    );
    axis(
        &mut text,
        "Perplexity protocols",
        "[perplexity] protocol = \"...\"",
        PROTOCOLS,
    );
    axis(&mut text, "Tasks", "[needle] tasks = [\"...\"]", TASKS);
    axis(
        &mut text,
        "Model families",
        "config.json: model_type",
        FAMILIES,
    );
    text += "\n## Figures\n\nFiles of a run folder, each as SVG and PNG.\n\n| file | what it shows |\n|---|---|\n";
    for figure in FIGURES {
        writeln!(text, "| `{}` | {} |", figure.stem(), figure.summary()).unwrap();
    }
    check("axes.md", &text);
}

/// A row of the README's methods table says of a variant what the registry says. A new variant
/// needs no row.
#[test]
fn rows_of_the_readme_are_current() {
    fn rows<V: Variant + ?Sized>(key: &str, variants: &[&V]) -> usize {
        let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
        let known: Vec<String> = (variants.iter())
            .map(|variant| {
                let (summary, source) = (one_line(variant.summary()), one_line(variant.source()));
                format!("| `{key} = {}` | {summary} | {source} | ", variant.name())
            })
            .collect();
        let start = format!("| `{key} = ");
        let rows = readme.lines().filter(|line| line.starts_with(&start));
        rows.map(|row| {
            let current = known.iter().any(|known| row.starts_with(known));
            assert!(current, "not what the registry says: {row}");
        })
        .count()
    }
    assert!(rows("rope", METHODS) > 0);
    assert!(rows("attention", PATTERNS) > 0);
    assert!(rows("scale", SCALES) > 0);
}
