//! Documents that are generated from the code: the keys of a run config, and the variants of all axes.

use documented::DocumentedFields;
use longspan_attention::{PATTERNS, SCALES, method_keys};
use longspan_model::FAMILIES;
use longspan_rope::{METHODS, Variant};

use crate::config::{
    DataConfig, ModelConfig, NeedleConfig, PerplexityConfig, Published, RunConfig,
};
use crate::figures::FIGURES;
use crate::protocols::PROTOCOLS;
use crate::tasks::{TASKS, Template};

/// `docs/config.md`.
pub fn config() -> String {
    let mut text = "\
# The run config

Generated from the doc comments of the config's types; a test keeps it current.

A run config is a TOML file: `longspan run FILE` measures every `[[method]]` at every length. Paths are
relative to the working directory. An unknown key is an error. `--set KEY=VALUE` replaces a key
(`--set model.path=/models/Qwen-7B`, `--set method.0.sinks=4`). The config with everything applied is
kept as `config.toml` in the run folder. Examples are in `experiments/configs/`.
"
    .to_owned();
    let mut table = |title: &str, keys: &mut dyn Iterator<Item = (&'static str, &'static str)>| {
        text += &format!("\n## {title}\n\n| key | meaning |\n|---|---|\n");
        for (key, meaning) in keys {
            text += &format!("| `{key}` | {} |\n", one_line(meaning));
        }
    };
    table("Tables", &mut keys::<RunConfig>());
    table("`[model]`", &mut keys::<ModelConfig>());
    table("`[data]`", &mut keys::<DataConfig>());
    table("`[[method]]`", &mut method_keys());
    table("`[perplexity]`", &mut keys::<PerplexityConfig>());
    table("`[needle]`", &mut keys::<NeedleConfig>());
    table("`[[needle.task]]`", &mut keys::<Template>());
    table("`[[published]]`", &mut keys::<Published>());
    text += "\nVariants and their options: [axes.md](axes.md). What protocols and tasks measure: \
             [protocols.md](protocols.md).\n";
    text
}

/// Keys of a table and what they mean.
fn keys<T: DocumentedFields>() -> impl Iterator<Item = (&'static str, &'static str)> {
    let names = T::FIELD_NAMES.iter().copied();
    names.zip(T::FIELD_DOCS.iter().copied())
}

/// `docs/axes.md`.
pub fn axes() -> String {
    let mut text = "\
# The axes and their variants

Generated from the registries; a test keeps it current. `longspan list` prints the same. How to add a
variant: [extending.md](extending.md).
"
    .to_owned();
    axis(&mut text, "Frequency methods", "rope = { kind = \"...\" }", METHODS);
    axis(&mut text, "Attention patterns", "attention = { kind = \"...\" }", PATTERNS);
    axis(&mut text, "Query scales", "scale = { kind = \"...\" }", SCALES);
    axis(&mut text, "Perplexity protocols", "[perplexity] protocol = \"...\"", PROTOCOLS);
    axis(&mut text, "Tasks", "[needle] tasks = [\"...\"]", TASKS);
    axis(&mut text, "Model families", "config.json: model_type", FAMILIES);
    text += "\n## Figures\n\nFiles of a run folder, each as SVG and PNG.\n\n| file | what it shows |\n|---|---|\n";
    for figure in FIGURES {
        text += &format!("| `{}` | {} |\n", figure.stem(), figure.summary());
    }
    text
}

fn axis<V: Variant + ?Sized>(text: &mut String, title: &str, key: &str, variants: &[&V]) {
    *text += &format!("\n## {title}\n\n`{key}`\n\n");
    *text += "| name | what it does | source | options |\n|---|---|---|---|\n";
    for variant in variants {
        let options: Vec<String> = (variant.options().iter())
            .map(|o| format!("`{}` ({}): {}", o.name, o.default, one_line(o.meaning)))
            .collect();
        *text += &format!(
            "| `{}` | {} | {} | {} |\n",
            variant.name(),
            one_line(variant.summary()),
            one_line(variant.source()),
            options.join("<br>")
        );
    }
}

/// A doc comment in one line of a Markdown table.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}
